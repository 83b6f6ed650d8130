// SPDX-License-Identifier: BSL-1.0
//
// The stack machine that a pickle is a program for. It reads all of protocols 0 to 5 and runs
// nothing: what would import a name or call one ends it, but for the few names in globals.hpp.
// Whatever the bytes are, it takes memory and time in proportion to their number.
#pragma once

#include <multiprocessing/python/globals.hpp>
#include <multiprocessing/python/input.hpp>
#include <multiprocessing/python/integer.hpp>
#include <multiprocessing/python/opcodes.hpp>
#include <multiprocessing/python/stack.hpp>
#include <multiprocessing/python/text.hpp>
#include <multiprocessing/python/value.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace multiprocessing::python::machine {

class Machine {
public:
    /// The pickle must outlive what is read from it, and so must the arena.
    Machine(std::string_view pickle, Arena& arena)
        : input_(pickle), arena_(arena), stack_(input_), memo_(input_) {}

    /// The object. *Throws* UnpicklingError.
    [[nodiscard]] Value run();

private:
    void run_to_stop();
    void step_of_protocol_0(unsigned char code);

    void push(Value value) { stack_.push(value); }
    void push_text(std::string_view text) {
        if (!text::is_ascii(text)) check_text(text);
        push(Value(Kind::text, text));
    }
    void check_text(std::string_view text) const {
        if (const auto fault = text::fault(text); !fault.empty()) input_.fail("the str " + fault);
    }
    // A str of Python 2, which may be any bytes.
    void push_old_text(std::string_view text) {
        if (!text::is_ascii(text)) {
            input_.fail("a str of Python 2 that is not ASCII may be text or bytes: pickle it as "
                        "unicode or bytearray");
        }
        push(Value(Kind::text, text));
    }
    // Of the topmost, which go.
    void push_container(Kind kind, std::size_t count) {
        const auto items = stack_.last(count);
        check_pairs(kind, count);
        const Value container = make_container(arena_, kind, count);
        append(arena_, container.node(), items);
        stack_.drop(count);
        push(container);
    }
    // Adds the topmost to the container under them.
    void add(Kind kind, std::size_t count) {
        const auto values = stack_.last(count + 1);
        check_pairs(kind, count);
        if (values.front().kind() != kind) {
            input_.fail(kind == Kind::list   ? "there is no list to add to"
                        : kind == Kind::dict ? "there is no dict to add to"
                                             : "there is no set to add to");
        }
        append(arena_, values.front().node(), values.subspan(1));
        stack_.drop(count);
    }
    void check_pairs(Kind kind, std::size_t count) const {
        if (kind == Kind::dict && count % 2 != 0) input_.fail("a key has no value");
    }

    void push_integer(std::string_view decimal);
    void push_constructor(std::string_view module, std::string_view name);
    [[noreturn]] void fail_import(std::string_view module, std::string_view name) const;
    void call();

    Input input_;
    Arena& arena_;
    Stack stack_;
    Memo memo_;
    std::size_t called_with_ = 0;  // bytes of text
};

/// Reads a whole pickle.
[[nodiscard]] inline Value parse(std::string_view pickle, Arena& arena) {
    return Machine(pickle, arena).run();
}

// -------------------------------------------------------------------------------------------------

inline Value Machine::run() {
    run_to_stop();
    const Value result = stack_.pop();
    if (input_.left() != 0) {
        input_.fail("the pickle ends here, and " + std::to_string(input_.left()) +
                    " bytes are left over");
    }
    return result;
}

inline void Machine::run_to_stop() {
    for (unsigned char code; (code = input_.take_opcode()) != op("STOP");) {
        switch (code) {
        case op("PROTO"):
            if (const auto protocol = input_.take_number<std::uint8_t>(); protocol > 5) {
                input_.fail("protocol " + std::to_string(protocol) +
                            " is not known: pickle with protocol=5 or less");
            }
            break;
        case op("FRAME"): input_.check_left(input_.take_number<std::uint64_t>()); break;

        case op("NONE"): push(Value(Kind::none)); break;
        case op("NEWTRUE"): push(Value::boolean(true)); break;
        case op("NEWFALSE"): push(Value::boolean(false)); break;
        case op("BININT"): push(Value::integer(input_.take_number<std::int32_t>())); break;
        case op("BININT1"): push(Value::integer(input_.take_number<std::uint8_t>())); break;
        case op("BININT2"): push(Value::integer(input_.take_number<std::uint16_t>())); break;
        case op("LONG1"): push(integers::of_bytes(input_.take_counted<std::uint8_t>())); break;
        case op("LONG4"): push(integers::of_bytes(input_.take_counted<std::uint32_t>())); break;
        case op("BINFLOAT"): {
            // Of all numbers, this one has its highest byte first.
            const auto bits = __builtin_bswap64(input_.take_number<std::uint64_t>());
            push(Value::real(std::bit_cast<double>(bits)));
            break;
        }
        case op("SHORT_BINUNICODE"): push_text(input_.take_counted<std::uint8_t>()); break;
        case op("BINUNICODE"): push_text(input_.take_counted<std::uint32_t>()); break;
        case op("BINUNICODE8"): push_text(input_.take_counted<std::uint64_t>()); break;
        case op("SHORT_BINSTRING"): push_old_text(input_.take_counted<std::uint8_t>()); break;
        case op("BINSTRING"): push_old_text(input_.take_counted<std::uint32_t>()); break;
        case op("SHORT_BINBYTES"): push({Kind::raw, input_.take_counted<std::uint8_t>()}); break;
        case op("BINBYTES"): push({Kind::raw, input_.take_counted<std::uint32_t>()}); break;
        case op("BINBYTES8"):
        case op("BYTEARRAY8"): push({Kind::raw, input_.take_counted<std::uint64_t>()}); break;

        case op("EMPTY_LIST"): push_container(Kind::list, 0); break;
        case op("EMPTY_DICT"): push_container(Kind::dict, 0); break;
        case op("EMPTY_SET"): push_container(Kind::set, 0); break;
        case op("EMPTY_TUPLE"): push_container(Kind::tuple, 0); break;
        case op("TUPLE1"): push_container(Kind::tuple, 1); break;
        case op("TUPLE2"): push_container(Kind::tuple, 2); break;
        case op("TUPLE3"): push_container(Kind::tuple, 3); break;
        case op("TUPLE"): push_container(Kind::tuple, stack_.unmark()); break;
        case op("LIST"): push_container(Kind::list, stack_.unmark()); break;
        case op("DICT"): push_container(Kind::dict, stack_.unmark()); break;
        case op("FROZENSET"): push_container(Kind::set, stack_.unmark()); break;
        case op("APPEND"): add(Kind::list, 1); break;
        case op("SETITEM"): add(Kind::dict, 2); break;
        case op("APPENDS"): add(Kind::list, stack_.unmark()); break;
        case op("SETITEMS"): add(Kind::dict, stack_.unmark()); break;
        case op("ADDITEMS"): add(Kind::set, stack_.unmark()); break;

        case op("MARK"): stack_.mark(); break;
        case op("POP_MARK"): stack_.drop(stack_.unmark()); break;
        case op("POP"): stack_.drop_top(); break;
        case op("DUP"): push(stack_.top()); break;

        case op("MEMOIZE"): memo_.append(stack_.top()); break;
        case op("BINPUT"): memo_.put(input_.take_number<std::uint8_t>(), stack_.top()); break;
        case op("LONG_BINPUT"): memo_.put(input_.take_number<std::uint32_t>(), stack_.top()); break;
        case op("BINGET"): push(memo_.get(input_.take_number<std::uint8_t>())); break;
        case op("LONG_BINGET"): push(memo_.get(input_.take_number<std::uint32_t>())); break;

        case op("STACK_GLOBAL"): {
            const Value name = stack_.pop();
            const Value module = stack_.pop();
            if (module.kind() != Kind::text || name.kind() != Kind::text)
                input_.fail("a module and a name must be str");
            push_constructor(module.text(), name.text());
            break;
        }
        case op("REDUCE"): call(); break;
        default: step_of_protocol_0(code); break;
        }
    }
}

inline void Machine::step_of_protocol_0(unsigned char code) {
    const auto take_index = [&] {
        const auto index = text::number<std::uint64_t>(input_.take_line());
        if (!index) input_.fail("its index is no number");
        return *index;
    };
    switch (code) {
    case op("PUT"): memo_.put(take_index(), stack_.top()); break;
    case op("GET"): push(memo_.get(take_index())); break;
    case op("INT"): {
        const std::string_view line = input_.take_line();
        if (line == "01" || line == "00")
            push(Value::boolean(line == "01"));
        else
            push_integer(line);
        break;
    }
    case op("LONG"): {
        std::string_view line = input_.take_line();
        if (line.ends_with('L')) line.remove_suffix(1);
        push_integer(line);
        break;
    }
    case op("FLOAT"): {
        const auto number = text::number<double>(input_.take_line());
        if (!number) input_.fail("its argument is no number");
        push(Value::real(*number));
        break;
    }
    case op("UNICODE"): {
        const auto text = text::from_raw_unicode_escape(input_.take_line(), arena_);
        if (!text) input_.fail("an escape in the str is wrong");
        push_text(*text);
        break;
    }
    case op("STRING"): {
        const std::string_view line = input_.take_line();
        if (line.size() < 2 || line.front() != line.back() ||
            (line.front() != '\'' && line.front() != '"')) {
            input_.fail("its argument is not in quotes");
        }
        const auto text = text::from_escapes(line.substr(1, line.size() - 2), arena_);
        if (!text) input_.fail("an escape in the str is wrong");
        push_old_text(*text);
        break;
    }
    case op("GLOBAL"): {
        const std::string_view module = input_.take_line();
        push_constructor(module, input_.take_line());
        break;
    }
    case op("INST"): {
        const std::string_view module = input_.take_line();
        fail_import(module, input_.take_line());
    }
    default: input_.fail(refusal_of(code));
    }
}

inline void Machine::push_integer(std::string_view decimal) {
    const auto value = integers::of_text(decimal, arena_);
    if (!value) input_.fail("its argument is no decimal number");
    push(*value);
}

inline void Machine::push_constructor(std::string_view module, std::string_view name) {
    const auto found = find_constructor(module, name);
    if (!found) fail_import(module, name);
    push(Value::constructor(*found));
}

inline void Machine::fail_import(std::string_view module, std::string_view name) const {
    input_.fail(
        "the pickle would import " + printable(module) + "." + printable(name) +
        ": reading runs no code, and takes None, bool, int, float, str, bytes, list, tuple, "
        "dict and set only");
}

inline void Machine::call() {
    const auto values = stack_.last(2);
    if (values[0].kind() != Kind::constructor || values[1].kind() != Kind::tuple)
        input_.fail(refusal_of(op("REDUCE")));
    const auto which = static_cast<Constructor>(values[0].natural());
    const auto args = values[1].items();
    // A text is encoded once; one that is again and again would make much out of little.
    if (!args.empty() && args.front().kind() == Kind::text) called_with_ += args.front().length();
    const bool is_new = called_with_ <= 4 * input_.size();
    const auto made = is_new ? construct(which, args, arena_) : std::nullopt;
    if (!made) {
        input_.fail(std::string("the pickle would call ") + name_of(which) +
                    " as no pickle of plain data does: reading runs no code");
    }
    stack_.drop(2);
    push(*made);
}

}  // namespace multiprocessing::python::machine
