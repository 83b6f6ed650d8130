// SPDX-License-Identifier: BSL-1.0
//
// The command line of the three jobs: options with one value (`--name VALUE` or `--name=VALUE`),
// and words. What is wrong with it is said on stderr in one line, and the program ends with code 2.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Each call takes its part out of the command line; `finish()` complains about what is left over.
///
///     Arguments arguments("sort", usage, argc, argv);
///     const auto lines = arguments.number<int>("--lines", 10, 1, 1000);
///     const auto file = arguments.word().value_or("-");
///     arguments.finish();
class Arguments {
public:
    /// Prints `usage` and ends the program if `--help` is asked for.
    Arguments(std::string_view program, std::string_view usage, int argc, char** argv)
        : program_(program), rest_(argv + 1, argv + argc) {
        for (const std::string& argument : rest_) {
            if (argument == "--") break;
            if (argument != "--help" && argument != "-h") continue;
            std::cout << usage;
            std::exit(0);
        }
    }

    /// Whether the option `name`, which has no value, is there.
    bool flag(std::string_view name) {
        bool found = false;
        for (std::size_t i = 0; i < rest_.size() && rest_[i] != "--";) {
            if (rest_[i] == name) {
                take(i);
                found = true;
            } else {
                ++i;
            }
        }
        return found;
    }

    /// The value of the option `name`; the last one if it is given more than once.
    std::optional<std::string> option(const std::string& name) {
        std::optional<std::string> value;
        for (std::size_t i = 0; i < rest_.size() && rest_[i] != "--";) {
            if (rest_[i] == name) {
                take(i);
                if (i == rest_.size()) fail(name + " needs a value");
                value = take(i);
            } else if (rest_[i].starts_with(name + '=')) {
                value = take(i).substr(name.size() + 1);
            } else {
                ++i;
            }
        }
        return value;
    }

    /// The value of the option `name` as a number from `least` to `most`.
    template <class Number>
    Number number(const std::string& name, Number otherwise, Number least, Number most) {
        const std::optional<std::string> text = option(name);
        if (!text) return otherwise;
        const std::optional<Number> value = parse<Number>(*text);
        if (!value || *value < least || *value > most) {
            fail(name + " needs a number from " + std::to_string(least) + " to " +
                 std::to_string(most) + ", not '" + *text + "'");
        }
        return *value;
    }

    /// The next word, once all options have been taken.
    std::optional<std::string> word() {
        if (!rest_.empty() && rest_.front() == "--") {
            take(0);
            only_words_ = true;
        }
        if (rest_.empty()) return std::nullopt;
        if (!only_words_ && rest_.front().starts_with("-") && rest_.front() != "-") {
            fail("unknown option '" + rest_.front() + "'");
        }
        return take(0);
    }

    /// Complains if anything is left.
    void finish() {
        if (const std::optional<std::string> more = word()) {
            fail("one argument too many: '" + *more + "'");
        }
    }

    [[noreturn]] void fail(const std::string& complaint) const {
        std::cerr << program_ << ": " << complaint << "\nTry '" << program_ << " --help'.\n";
        std::exit(2);
    }

    /// All of `text` as a number, if it is one.
    template <class Number>
    static std::optional<Number> parse(std::string_view text) {
        Number value{};
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
        return value;
    }

    /// "1200x800" as {1200, 800}; nothing at all if any part is no number.
    template <class Number>
    static std::vector<Number> parse_list(std::string_view text, char separator) {
        std::vector<Number> numbers;
        while (true) {
            const std::size_t end = std::min(text.find(separator), text.size());
            const std::optional<Number> number = parse<Number>(text.substr(0, end));
            if (!number) return {};
            numbers.push_back(*number);
            if (end == text.size()) return numbers;
            text.remove_prefix(end + 1);
        }
    }

private:
    std::string take(std::size_t i) {
        std::string argument = std::move(rest_[i]);
        rest_.erase(rest_.begin() + static_cast<std::ptrdiff_t>(i));
        return argument;
    }

    std::string program_;
    std::vector<std::string> rest_;
    bool only_words_ = false;
};
