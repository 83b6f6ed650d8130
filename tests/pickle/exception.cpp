// SPDX-License-Identifier: BSL-1.0
#include "support/catch.hpp"

#include <multiprocessing/pickle/exception.hpp>

#include <any>
#include <filesystem>
#include <functional>
#include <future>
#include <ios>
#include <memory>
#include <optional>
#include <regex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <variant>

namespace mp = multiprocessing;

namespace exception_test {

struct Registered : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct Serialised : std::exception {
    int code = 0;
    explicit Serialised(int value = 0) : code(value) {}
    [[nodiscard]] const char* what() const noexcept override { return "serialised"; }
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& code;
    }
};
struct NoStdException {
    std::string text;
    explicit NoStdException(std::string value) : text(std::move(value)) {}
};
struct Stubborn : std::exception {
    [[nodiscard]] const char* what() const noexcept override { return "stubborn"; }
    template <class Archive>
    void serialize(Archive&, unsigned) {
        throw std::runtime_error("will not be written");
    }
};
struct Unregistered : std::out_of_range {
    using std::out_of_range::out_of_range;
};
class OwnCategory : public std::error_category {
public:
    [[nodiscard]] const char* name() const noexcept override { return "own"; }
    [[nodiscard]] std::string message(int) const override { return "own message"; }
};

std::exception_ptr travel(const std::exception_ptr& thrown) {
    mp::pickle::Buffer buffer;
    mp::pickle::dump_exception(thrown, buffer, 4711, "worker-1");
    return mp::pickle::load_exception(buffer.span());
}

// The exception as a Caught, with its origin checked.
template <class Caught, class Thrown>
void check_type(const Thrown& thrown) {
    INFO(mp::pickle::type_name<Thrown>());
    try {
        std::rethrow_exception(travel(std::make_exception_ptr(thrown)));
    } catch (const Caught& caught) {
        CHECK(std::string(caught.what()) == thrown.what());
        const auto* remote = dynamic_cast<const mp::RemoteTraceback*>(&caught);
        REQUIRE(remote != nullptr);
        CHECK(remote->type_name() == mp::pickle::type_name<Thrown>());
        CHECK(remote->pid() == 4711);
        CHECK(remote->process_name() == "worker-1");
        CHECK_THAT(remote->text(), Catch::Matchers::ContainsSubstring(thrown.what()));
        return;
    } catch (...) {}
    FAIL("it has become another type");
}

template <class... Es>
void check_made_from_text() {
    (check_type<Es>(Es("the text")), ...);
}
template <class... Es>
void check_made_from_nothing() {
    (check_type<Es>(Es()), ...);
}

}  // namespace exception_test

using namespace exception_test;

TEST_CASE("exceptions of std keep their type and text", "[pickle][exception]") {
    check_made_from_text<std::logic_error, std::invalid_argument, std::domain_error,
                         std::length_error, std::out_of_range, std::runtime_error, std::range_error,
                         std::overflow_error, std::underflow_error, std::ios_base::failure>();
    check_made_from_nothing<std::exception, std::bad_exception, std::bad_alloc,
                            std::bad_array_new_length, std::bad_cast, std::bad_typeid,
                            std::bad_any_cast, std::bad_function_call, std::bad_optional_access,
                            std::bad_variant_access, std::bad_weak_ptr>();
    check_type<std::future_error>(std::future_error(std::future_errc::broken_promise));
    check_type<std::regex_error>(std::regex_error(std::regex_constants::error_paren));
}

TEST_CASE("exceptions of the library keep their type and what they hold", "[pickle][exception]") {
    check_made_from_text<mp::ProcessError, mp::AuthenticationError, mp::TimeoutError,
                         mp::CancelledError, mp::InvalidStateError, mp::Empty, mp::Full,
                         mp::ShutDown, mp::BrokenBarrierError, mp::EOFError, mp::StopIteration,
                         mp::ValueError, mp::AssertionError, mp::PicklingError,
                         mp::UnpicklingError>();
    try {
        std::rethrow_exception(
            travel(std::make_exception_ptr(mp::WorkerLostError("lost", 12, -9))));
    } catch (const mp::WorkerLostError& error) {
        CHECK(error.pid() == 12);
        CHECK(error.exitcode() == -9);
    }
    try {
        std::rethrow_exception(travel(std::make_exception_ptr(mp::BufferTooShort("s", "bytes"))));
    } catch (const mp::BufferTooShort& error) {
        CHECK(error.message().str() == "bytes");
    }
}

TEST_CASE("a std::system_error keeps its code", "[pickle][exception]") {
    check_type<std::system_error>(std::system_error(EPERM, std::system_category(), "open"));
    try {
        std::rethrow_exception(travel(
            std::make_exception_ptr(std::system_error(EPERM, std::system_category(), "open"))));
    } catch (const std::system_error& error) {
        CHECK(error.code() == std::error_code(EPERM, std::system_category()));
        CHECK(error.code() == std::errc::operation_not_permitted);
    }
    static const OwnCategory own;
    try {
        std::rethrow_exception(travel(std::make_exception_ptr(std::system_error(7, own, "x"))));
    } catch (const std::system_error& error) {
        CHECK(error.code().value() == 7);
        CHECK(std::string(error.code().category().name()) == "own");
        CHECK(std::string(error.what()) == "x: own message");
    }
    const std::filesystem::filesystem_error missing(
        "cannot", "/a", "/b", std::make_error_code(std::errc::no_such_file_or_directory));
    check_type<std::filesystem::filesystem_error>(missing);
    try {
        std::rethrow_exception(travel(std::make_exception_ptr(missing)));
    } catch (const std::filesystem::filesystem_error& error) {
        CHECK(error.path1() == "/a");
        CHECK(error.path2() == "/b");
        CHECK(error.code() == missing.code());
    }
}

TEST_CASE("registered exceptions keep their type", "[pickle][exception]") {
    mp::register_exception<Registered>();
    mp::register_exception<Serialised>();
    mp::register_exception<NoStdException>();
    check_type<Registered>(Registered("mine"));
    check_type<Serialised>(Serialised(5));
    try {
        std::rethrow_exception(travel(std::make_exception_ptr(Serialised(5))));
    } catch (const Serialised& error) {
        CHECK(error.code == 5);
    }
    try {
        std::rethrow_exception(travel(std::make_exception_ptr(NoStdException("x"))));
    } catch (const NoStdException& error) {
        CHECK(dynamic_cast<const mp::RemoteTraceback&>(
                  static_cast<const mp::pickle::Remote<NoStdException>&>(error))
                  .pid() == 4711);
    }
}

TEST_CASE("other exceptions arrive as RemoteError that names their type", "[pickle][exception]") {
    mp::register_exception<Stubborn>();
    check_type<mp::RemoteError>(Unregistered("at the edge"));
    check_type<mp::RemoteError>(Stubborn());
    try {
        std::rethrow_exception(travel(std::make_exception_ptr(5)));
    } catch (const mp::RemoteError& error) {
        CHECK(error.type_name() == "int");
    }
    try {
        std::rethrow_exception(travel(std::make_exception_ptr(std::string("thrown text"))));
    } catch (const mp::RemoteError& error) {
        CHECK(std::string(error.what()) == "thrown text");
    }
}

TEST_CASE("an exception that travels on keeps its origin", "[pickle][exception]") {
    for (const auto& thrown : {std::make_exception_ptr(std::out_of_range("edge")),
                               std::make_exception_ptr(Unregistered("edge"))}) {
        const auto first = travel(thrown);
        mp::pickle::Buffer buffer;
        mp::pickle::dump_exception(first, buffer, 1, "relay");
        const auto second = mp::pickle::load_exception(buffer.span());
        CHECK(mp::pickle::describe(second) == mp::pickle::describe(thrown));
        try {
            std::rethrow_exception(second);
        } catch (const mp::RemoteTraceback& remote) {
            CHECK(remote.pid() == 4711);
            CHECK(remote.process_name() == "worker-1");
        }
    }
}

TEST_CASE("what std::throw_with_nested threw has the type it was given, and tells its cause",
          "[pickle][exception]") {
    const auto nested = [](auto inner, auto outer) {
        try {
            try {
                throw inner;
            } catch (...) {
                std::throw_with_nested(outer);
            }
        } catch (...) {
            return std::current_exception();
        }
    };
    const auto there = travel(nested(std::out_of_range("inner"), std::logic_error("outer")));
    CHECK_THROWS_AS(std::rethrow_exception(there), std::logic_error);
    CHECK_THROWS_WITH(std::rethrow_exception(there), "outer");
    for (const auto& thrown : {there, travel(there)}) {
        try {
            std::rethrow_exception(thrown);
        } catch (const mp::RemoteTraceback& remote) {
            CHECK(remote.cause() == "std::out_of_range: inner");
            CHECK_THAT(remote.text(), Catch::Matchers::ContainsSubstring(
                                          "outer, caused by std::out_of_range: inner"));
        }
    }
    CHECK_THROWS_AS(std::rethrow_exception(travel(nested(1, Unregistered("outer")))), mp::RemoteError);
}

TEST_CASE("an exception takes the place of its throw along, also when it is passed on",
          "[pickle][exception]") {
    mp::os::Backtrace trace;
    trace.calls[0] = reinterpret_cast<std::uintptr_t>(&mp::os::this_program);
    trace.size = 1;
    mp::pickle::Buffer first_bytes;
    mp::pickle::dump_exception(std::make_exception_ptr(std::out_of_range("far")), first_bytes, 1,
                               "one", trace);
    const auto first = mp::pickle::load_exception(first_bytes.span());
    const auto text_of = [](const std::exception_ptr& thrown) {
        try {
            std::rethrow_exception(thrown);
        } catch (const mp::RemoteTraceback& remote) {
            return remote.text();
        }
    };
    CHECK_THAT(text_of(first), Catch::Matchers::ContainsSubstring("multiprocessing::os::this_program()"));
    mp::pickle::Buffer second_bytes;
    mp::pickle::dump_exception(first, second_bytes, 2, "two");
    CHECK(text_of(mp::pickle::load_exception(second_bytes.span())) == text_of(first));
    // Without one it is a single line.
    mp::pickle::Buffer bare;
    mp::pickle::dump_exception(std::make_exception_ptr(std::out_of_range("far")), bare, 1, "one");
    CHECK(text_of(mp::pickle::load_exception(bare.span())).find('\n') == std::string::npos);
}

TEST_CASE("an exception is described by its type and text", "[pickle][exception]") {
    CHECK(mp::pickle::describe(std::make_exception_ptr(std::out_of_range("edge"))) ==
          "std::out_of_range: edge");
    CHECK(mp::pickle::describe(std::make_exception_ptr(Unregistered("edge"))) ==
          "exception_test::Unregistered: edge");
    CHECK(mp::pickle::describe(std::make_exception_ptr(5)) == "int");
    CHECK(mp::pickle::describe(nullptr) == "no exception");
}
