// SPDX-License-Identifier: BSL-1.0
//
// What an exception holds beside its text, and the class as which it is thrown again in another
// process.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/pickle/message.hpp>

#include <concepts>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <future>
#include <ios>
#include <map>
#include <mutex>
#include <regex>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

namespace multiprocessing::pickle {

/// An E of another process.
template <class E>
class Remote : public E, public RemoteTraceback {
public:
    Remote(E original, const RemoteTraceback& where)
        : E(std::move(original)), RemoteTraceback(where) {}
};
/// Its text is the original's, also where E makes up its own.
template <std::derived_from<std::exception> E>
class Remote<E> : public E, public RemoteTraceback {
public:
    Remote(E original, const RemoteTraceback& where)
        : E(std::move(original)), RemoteTraceback(where) {}
    [[nodiscard]] const char* what() const noexcept override { return message().c_str(); }
};

namespace exceptions {

/// Whether an E is its serialize().
template <class E>
concept SerializesItself = HasSerialize<E> && std::default_initializable<E>;

/// How an E is made again from its text; and, where it holds more than that, how that is written:
/// `save`. Specialised for those that do.
template <class E>
struct ExceptionCodec {
    static void save(OArchive& archive, const E& exception)
        requires SerializesItself<E>
    {
        save_value(archive, exception);
    }
    static E load(IArchive& archive, const std::string& what) {
        if constexpr (SerializesItself<E>) {
            E exception{};
            load_value(archive, exception);
            return exception;
        } else if constexpr (std::constructible_from<E, const std::string&>) {
            return E(what);
        } else {
            static_assert(std::default_initializable<E>,
                          "register_exception<E>(): E must be constructible from a std::string, or "
                          "have serialize() and a default constructor");
            return E{};
        }
    }
};
template <class E>
concept HoldsMore =
    requires(OArchive& archive, const E& exception) { ExceptionCodec<E>::save(archive, exception); };

/// The category of an error code of another process that this process does not know.
class RemoteCategory : public std::error_category {
public:
    explicit RemoteCategory(std::string name) : name_(std::move(name)) {}
    [[nodiscard]] const char* name() const noexcept override { return name_.c_str(); }
    [[nodiscard]] std::string message(int value) const override {
        return "error " + std::to_string(value);
    }

private:
    std::string name_;
};

[[nodiscard]] inline const std::error_category& category_named(const std::string& name) {
    for (const auto* category : {&std::generic_category(), &std::system_category(),
                                 &std::iostream_category(), &std::future_category()})
        if (name == category->name()) return *category;
    // Categories are compared by address and live for ever.
    using Categories = std::map<std::string, RemoteCategory>;
    static constinit os::Lazy<Categories> others;
    static constinit os::ForkAwareMutex mutex;
    const std::scoped_lock lock(mutex);
    return others.get([] { return new Categories; }).try_emplace(name, name).first->second;
}

inline void save_code(OArchive& archive, const std::error_code& code) {
    archive.put(static_cast<std::int32_t>(code.value()));
    save_value(archive, std::string(code.category().name()));
}
[[nodiscard]] inline std::error_code load_code(IArchive& archive) {
    const auto value = archive.get<std::int32_t>();
    std::string category;
    load_value(archive, category);
    return {value, category_named(category)};
}

template <class E>
    requires std::same_as<E, std::system_error> || std::same_as<E, std::ios_base::failure>
struct ExceptionCodec<E> {
    static void save(OArchive& archive, const E& exception) {
        save_code(archive, exception.code());
    }
    static E load(IArchive& archive, const std::string&) {
        if constexpr (std::same_as<E, std::system_error>) {
            return E(load_code(archive), "");
        } else {
            return E("", load_code(archive));
        }
    }
};

template <>
struct ExceptionCodec<SystemExit> {
    static void save(OArchive& archive, const SystemExit& exit) {
        archive.put(exit.code());
        archive.put(static_cast<std::uint8_t>(exit.message().has_value()));
        if (exit.message()) save_value(archive, *exit.message());
    }
    static SystemExit load(IArchive& archive, const std::string&) {
        const auto code = archive.get<int>();
        if (archive.get<std::uint8_t>() == 0) return SystemExit(code);
        std::string message;
        load_value(archive, message);
        return SystemExit(std::move(message));
    }
};

template <>
struct ExceptionCodec<std::filesystem::filesystem_error> {
    using E = std::filesystem::filesystem_error;
    static void save(OArchive& archive, const E& exception) {
        save_code(archive, exception.code());
        save_value(archive, exception.path1());
        save_value(archive, exception.path2());
    }
    static E load(IArchive& archive, const std::string&) {
        const std::error_code code = load_code(archive);
        std::filesystem::path one;
        std::filesystem::path two;
        archive >> one >> two;
        return E("", one, two, code);
    }
};

template <>
struct ExceptionCodec<std::future_error> {
    static void save(OArchive& archive, const std::future_error& exception) {
        archive.put(static_cast<std::int32_t>(exception.code().value()));
    }
    static std::future_error load(IArchive& archive, const std::string&) {
        return std::future_error(static_cast<std::future_errc>(archive.get<std::int32_t>()));
    }
};

template <>
struct ExceptionCodec<std::regex_error> {
    static void save(OArchive& archive, const std::regex_error& exception) {
        archive.put(static_cast<std::int32_t>(exception.code()));
    }
    static std::regex_error load(IArchive& archive, const std::string&) {
        return std::regex_error(
            static_cast<std::regex_constants::error_type>(archive.get<std::int32_t>()));
    }
};

template <>
struct ExceptionCodec<WorkerLostError> {
    static void save(OArchive& archive, const WorkerLostError& exception) {
        archive << exception.pid() << exception.exitcode();
    }
    static WorkerLostError load(IArchive& archive, const std::string& what) {
        const int pid = archive.get<int>();
        return WorkerLostError(what, pid, archive.get<int>());
    }
};

template <>
struct ExceptionCodec<BufferTooShort> {
    static void save(OArchive& archive, const BufferTooShort& exception) {
        archive << exception.message();
    }
    static BufferTooShort load(IArchive& archive, const std::string& what) {
        bytes message;
        archive >> message;
        return BufferTooShort(what, std::move(message));
    }
};

}  // namespace exceptions

}  // namespace multiprocessing::pickle
