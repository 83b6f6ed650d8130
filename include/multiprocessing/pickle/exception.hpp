// SPDX-License-Identifier: BSL-1.0
//
// Exceptions from one process to another: written where they were caught, thrown again as the same
// type where the result is asked for, with word of where they come from. Answers the
// `RemoteTraceback` of `multiprocessing.pool`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/backtrace.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/module.hpp>
#include <multiprocessing/pickle/backtrace_text.hpp>
#include <multiprocessing/pickle/exception_codec.hpp>
#include <multiprocessing/pickle/message.hpp>

#include <any>
#include <concepts>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <future>
#include <initializer_list>
#include <ios>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <regex>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <typeindex>
#include <typeinfo>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include <cxxabi.h>

namespace multiprocessing {

/// Lets exceptions of type E keep their type on the way from another process. E is made from a
/// std::string (`what()`), or has `serialize` and a default constructor. Everything of `std` and of
/// this library is known already.
///
/// *Fork and spawn*: that the call is somewhere in the program is enough: spawned processes, which
/// do not come by it, know E too.
template <class E>
void register_exception();

namespace pickle {

/// Appends what is known of the exception, and where it was thrown. Never fails for what the exception
/// is: one whose type is not registered arrives as a RemoteError that names it.
inline void dump_exception(const std::exception_ptr& exception, Buffer& buffer, int pid,
                           std::string_view process_name, const os::Backtrace& thrown = {});

/// The exception that `dump_exception` wrote, also derived from RemoteTraceback. Throws
/// UnpicklingError where the bytes are none.
[[nodiscard]] inline std::exception_ptr load_exception(std::span<const std::byte> bytes);

/// "type: what", for a person.
[[nodiscard]] inline std::string describe(const std::exception_ptr& exception);

// -------------------------------------------------------------------------------------------------

namespace exceptions {

/// A type of exceptions that keeps itself. In each program there are some fifty, so what each of them
/// takes of code is little.
struct Kind {
    const std::type_info* type;
    const std::type_info* remote;  // what came from another process may travel on
    /// What it holds beside its text. Null where that is nothing.
    void (*save)(OArchive&, const std::exception_ptr&);
    std::exception_ptr (*load)(IArchive&, const RemoteTraceback& where);

    [[nodiscard]] std::uint64_t hash() const noexcept { return hash_text(type->name()); }
};

template <class E>
void save(OArchive& archive, const std::exception_ptr& thrown) {
    try {
        std::rethrow_exception(thrown);
    } catch (const E& exception) {
        ExceptionCodec<E>::save(archive, exception);
    }
}
template <class E>
std::exception_ptr load(IArchive& archive, const RemoteTraceback& where) {
    return std::make_exception_ptr(
        Remote<E>(ExceptionCodec<E>::load(archive, where.message()), where));
}
template <class E>
inline constexpr Kind kind{&typeid(E), &typeid(Remote<E>), nullptr, &load<E>};
template <HoldsMore E>
inline constexpr Kind kind<E>{&typeid(E), &typeid(Remote<E>), &save<E>, &load<E>};
template <>
inline constexpr Kind kind<RemoteError>{&typeid(RemoteError), &typeid(RemoteError), nullptr,
                                        [](IArchive&, const RemoteTraceback& where) {
                                            return std::make_exception_ptr(
                                                RemoteError(where.message(), where));
                                        }};

/// The registered types, found by what was thrown and by what the bytes say.
class Registry {
public:
    void add(std::initializer_list<Kind> kinds) {
        const std::scoped_lock lock(mutex_);
        for (const Kind& each : kinds) {
            by_hash_.insert_or_assign(each.hash(), each);
            by_type_.insert_or_assign(*each.type, each);
            by_type_.insert_or_assign(*each.remote, each);
        }
    }
    [[nodiscard]] std::optional<Kind> find(const std::type_info& thrown) {
        const std::scoped_lock lock(mutex_);
        const auto found = by_type_.find(thrown);
        return found == by_type_.end() ? std::nullopt : std::optional(found->second);
    }
    [[nodiscard]] std::optional<Kind> find(std::uint64_t hash) {
        const std::scoped_lock lock(mutex_);
        const auto found = by_hash_.find(hash);
        return found == by_hash_.end() ? std::nullopt : std::optional(found->second);
    }
    // Never destroyed: exceptions may travel until the process ends.
    [[nodiscard]] static Registry& instance() {
        static constinit os::Lazy<Registry> registry;
        return registry.get([] { return new Registry; });
    }

private:
    Registry();
    template <class... Es>
    void add_all() {
        add({kind<Es>...});
    }

    os::ForkAwareMutex mutex_;
    std::unordered_map<std::type_index, Kind> by_type_;
    std::unordered_map<std::uint64_t, Kind> by_hash_;
};

inline Registry::Registry() {
    add_all<std::exception, std::bad_exception, std::bad_alloc, std::bad_array_new_length,
            std::bad_cast, std::bad_any_cast, std::bad_typeid, std::bad_function_call,
            std::bad_optional_access, std::bad_variant_access, std::bad_weak_ptr, std::logic_error,
            std::invalid_argument, std::domain_error, std::length_error, std::out_of_range,
            std::runtime_error, std::range_error, std::overflow_error, std::underflow_error,
            std::system_error, std::ios_base::failure, std::filesystem::filesystem_error,
            std::future_error, std::regex_error>();
    add_all<ProcessError, BufferTooShort, AuthenticationError, TimeoutError, TaskTimeoutError,
            WorkerLostError, BrokenExecutor, BrokenProcessPool, BrokenThreadPool, SystemExit,
            CancelledError, InvalidStateError, Empty, Full, ShutDown, BrokenBarrierError,
            BrokenHeapError, EOFError, StopIteration, KeyError, ValueError, AssertionError,
            PicklingError, UnpicklingError, RemoteError>();
}

template <class E>
struct Registration {
    static bool add() {
        Registry::instance().add({kind<E>});
        return true;
    }
    static inline const bool done = add();
};

/// What an exception says of itself.
struct Facts {
    const std::type_info* type = nullptr;
    std::string name = "an exception of unknown type";
    std::string what;
    std::string cause;  // what std::throw_with_nested has put into it
    std::optional<RemoteTraceback> remote;
};

[[nodiscard]] inline std::string cause_in(const std::exception& exception);

[[nodiscard]] inline Facts facts_of(const std::exception_ptr& thrown) {
    Facts facts;
    const auto learn_type = [&facts] {
        facts.type = abi::__cxa_current_exception_type();
        if (facts.type != nullptr) facts.name = type_name(*facts.type);
    };
    const auto learn_origin = [&facts](const RemoteTraceback* remote) {
        if (remote == nullptr) return;
        facts.remote = *remote;
        facts.name = remote->type_name();
        facts.cause = remote->cause();
    };
    try {
        std::rethrow_exception(thrown);
    } catch (const std::exception& exception) {
        learn_type();
        facts.what = exception.what();
        facts.cause = cause_in(exception);
        learn_origin(dynamic_cast<const RemoteTraceback*>(&exception));
    } catch (const RemoteTraceback& remote) {
        learn_type();
        learn_origin(&remote);
    } catch (const std::string& text) {
        learn_type();
        facts.what = text;
    } catch (const char* text) {
        learn_type();
        facts.what = text;
    } catch (...) {
        learn_type();
    }
    return facts;
}

inline std::string cause_in(const std::exception& exception) {
    const auto* nested = dynamic_cast<const std::nested_exception*>(&exception);
    if (nested == nullptr || nested->nested_ptr() == nullptr) return "";
    const Facts facts = facts_of(nested->nested_ptr());
    return facts.name + ": " + facts.what + (facts.cause.empty() ? "" : ", caused by " + facts.cause);
}

/// Of a class of std's own that is not in the list, the nearest that is.
[[nodiscard]] inline std::optional<Kind> kind_of_base(const std::exception_ptr& thrown) {
    Registry& registry = Registry::instance();
    try {
        std::rethrow_exception(thrown);
    } catch (const std::system_error&) {
        return registry.find(typeid(std::system_error));
    } catch (const std::runtime_error&) {
        return registry.find(typeid(std::runtime_error));
    } catch (const std::logic_error&) {
        return registry.find(typeid(std::logic_error));
    } catch (const std::bad_alloc&) {
        return registry.find(typeid(std::bad_alloc));
    } catch (const std::bad_cast&) {
        return registry.find(typeid(std::bad_cast));
    } catch (const std::exception&) {
        return registry.find(typeid(std::exception));
    } catch (...) {
        return std::nullopt;
    }
}

/// Of what std::throw_with_nested threw: the type that it was given, which its name (as g++ and clang
/// mangle it) has in it.
[[nodiscard]] inline std::optional<Kind> kind_of_nested(const std::type_info& type) {
    constexpr std::string_view before = "St17_Nested_exceptionI";
    const std::string_view name = type.name();
    if (!name.starts_with(before) || !name.ends_with('E')) return std::nullopt;
    return Registry::instance().find(
        hash_text(name.substr(before.size(), name.size() - before.size() - 1)));
}

[[nodiscard]] inline std::optional<Kind> kind_of(const std::exception_ptr& thrown,
                                                 const Facts& facts) {
    if (facts.type == nullptr) return std::nullopt;
    auto kind = Registry::instance().find(*facts.type);
    if (!kind) kind = kind_of_nested(*facts.type);
    if (!kind && facts.name.starts_with("std::") && !facts.name.starts_with("std::_Nested"))
        kind = kind_of_base(thrown);
    return kind;
}

}  // namespace exceptions

inline void dump_exception(const std::exception_ptr& exception, Buffer& buffer, int pid,
                           std::string_view process_name, const os::Backtrace& thrown) {
    using namespace exceptions;
    const Facts facts = facts_of(exception);
    const auto kind = kind_of(exception, facts);
    // Where it comes from another process, that is where it was thrown.
    const auto* remote =
        facts.remote ? dynamic_cast<const backtrace_text::RemoteCalls*>(facts.remote->calls().get())
                     : nullptr;
    const std::vector<os::CodeAddress> calls = remote != nullptr ? remote->places()
                                               : facts.remote    ? std::vector<os::CodeAddress>()
                                                                 : backtrace_text::places_of(thrown);
    OArchive archive(buffer);
    const auto save_facts = [&](std::uint64_t hash) {
        archive << hash << facts.name << facts.what << facts.cause
                << (facts.remote ? facts.remote->pid() : pid)
                << (facts.remote ? facts.remote->process_name() : std::string(process_name));
        archive.save_size(calls.size());
        for (const os::CodeAddress place : calls) archive.put(place);
    };
    const std::size_t before = buffer.size();
    if (kind) {
        try {
            save_facts(kind->hash());
            if (kind->save != nullptr) kind->save(archive, exception);
            return;
        } catch (const std::bad_alloc&) {
            throw;
        } catch (...) {
            buffer.truncate(before);  // its own serialize failed: the name and the text must do
        }
    }
    save_facts(type_hash<RemoteError>());
}

inline std::exception_ptr load_exception(std::span<const std::byte> bytes) {
    using namespace exceptions;
    IArchive archive(bytes);
    return while_unpickling(archive, [&] {
        std::uint64_t hash = 0;
        std::string name;
        std::string what;
        std::string cause;
        int pid = 0;
        std::string process_name;
        archive >> hash >> name >> what >> cause >> pid >> process_name;
        std::vector<os::CodeAddress> places(archive.load_size(sizeof(os::CodeAddress)));
        for (os::CodeAddress& place : places) place = archive.get<os::CodeAddress>();
        std::shared_ptr<const RemoteTraceback::Calls> calls;
        if (!places.empty()) calls = std::make_shared<backtrace_text::RemoteCalls>(std::move(places));
        const RemoteTraceback where(std::move(name), std::move(what), pid, std::move(process_name),
                                    std::move(calls), std::move(cause));
        if (const auto known = Registry::instance().find(hash)) return known->load(archive, where);
        return kind<RemoteError>.load(archive, where);
    });
}

inline std::string describe(const std::exception_ptr& exception) {
    if (exception == nullptr) return "no exception";
    const auto facts = exceptions::facts_of(exception);
    return facts.what.empty() ? facts.name : facts.name + ": " + facts.what;
}

}  // namespace pickle

template <class E>
void register_exception() {
    static_assert((pickle::HasSerialize<E> && std::default_initializable<E>) ||
                      std::constructible_from<E, const std::string&>,
                  "register_exception<E>(): E must be constructible from a std::string, or have "
                  "serialize() and a default constructor");
    static_assert(!std::is_final_v<E>,
                  "register_exception<E>(): E must not be final, for it is thrown as a class that "
                  "derives from it and from mp::RemoteTraceback");
    static_cast<void>(pickle::exceptions::Registration<E>::done);
}

}  // namespace multiprocessing
