// SPDX-License-Identifier: BSL-1.0
//
// CPython's tests of classes derived from Process, and of what a process says on stderr at its end.
#include <multiprocessing/process.hpp>

#include "conformance/helpers.hpp"
#include "runtime/helpers.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace mp = multiprocessing;
using namespace support;
using Catch::Matchers::ContainsSubstring;

namespace {

class UpperCaser : public mp::Spawnable<UpperCaser> {
public:
    explicit UpperCaser(mp::ProcessOptions options) : Spawnable(std::move(options)) {
        std::tie(child_end_, parent_end_) = mp::Pipe();
    }

    void run() override {
        parent_end_.close();
        while (auto text = receive<std::optional<std::string>>(child_end_)) {
            for (char& c : *text) c = static_cast<char>(std::toupper(c));
            child_end_.send(*text);
        }
        child_end_.close();
    }
    std::string submit(const std::string& text) const {
        parent_end_.send(std::optional(text));
        return receive<std::string>(parent_end_);
    }
    void stop() const {
        parent_end_.send(std::optional<std::string>());
        parent_end_.close();
        child_end_.close();
    }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive& child_end_& parent_end_;
    }

private:
    mp::Connection child_end_;
    mp::Connection parent_end_;
};

/// A file for a child to write to in the place of stderr.
class ErrorFile {
public:
    [[nodiscard]] const std::string& path() const { return path_; }
    /// What is in it. It is gone then.
    [[nodiscard]] std::string take() const {
        std::ifstream file(path_);
        const std::string text(std::istreambuf_iterator<char>(file), {});
        std::filesystem::remove(path_);
        return text;
    }
    ~ErrorFile() { std::filesystem::remove(path_); }

private:
    std::string path_ =
        std::filesystem::temp_directory_path() / ("errors-" + std::to_string(::getpid()));
};

void redirect_errors(const std::string& path) {
    const mp::os::Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    EXPECT(::dup2(file.get(), STDERR_FILENO) == STDERR_FILENO);
    // Nothing is written unless somebody flushes.
    std::setvbuf(stderr, nullptr, _IOFBF, BUFSIZ);
}

void fail_with_errors_in(const std::string& path) {
    redirect_errors(path);
    std::fputs("MARKER\n", stderr);
    throw std::domain_error("division by zero");
}

void exit_with_errors_in(const std::string& path, const std::string& reason) {
    redirect_errors(path);
    mp::exit(reason);
}

}  // namespace

TEST_CASE("_TestSubclassingProcess.test_subclassing", "[process][conformance]") {
    EVERY_START_METHOD;
    UpperCaser upper_caser({.context = mp::get_context(method)});
    upper_caser.set_daemon(true);
    upper_caser.start();
    CHECK(upper_caser.submit("hello") == "HELLO");
    CHECK(upper_caser.submit("world") == "WORLD");
    upper_caser.stop();
    CHECK(ended(upper_caser) == 0);
}

TEST_CASE("_TestSubclassingProcess.test_stderr_flush", "[process][conformance]") {
    EVERY_START_METHOD;
    const ErrorFile file;
    const auto p = mp::get_context(method).Process(fail_with_errors_in, file.path());
    CHECK(run(p) == 1);
    const std::string text = file.take();
    CHECK_THAT(text, ContainsSubstring("MARKER\n"));
    CHECK_THAT(text, ContainsSubstring("Process " + p.name() + " (pid " +
                                       std::to_string(p.pid().value()) +
                                       "): std::domain_error: division by zero\n"));
}

TEST_CASE("_TestSubclassingProcess.test_sys_exit", "[process][conformance]") {
    EVERY_START_METHOD;
    const auto ctx = mp::get_context(method);
    const ErrorFile file;
    for (const std::string reason : {"[1, 2, 3]", "ignore this"}) {
        CHECK(run(ctx.Process({.daemon = true}, exit_with_errors_in, file.path(), reason)) == 1);
        CHECK(file.take() == reason + "\n");
    }
    CHECK(run(ctx.Process({.daemon = true}, [] { mp::exit(true); })) == 1);
    CHECK(run(ctx.Process({.daemon = true}, [] { mp::exit(false); })) == 0);
    CHECK(run(ctx.Process({.daemon = true}, [] { mp::exit(8); })) == 8);
    CHECK(run(ctx.Process({.daemon = true}, [] { mp::exit(); })) == 0);
}
