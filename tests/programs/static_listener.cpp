// SPDX-License-Identifier: BSL-1.0
//
// A listener that lives as long as the program, and handshakes at its very end: the file of its address
// goes, and OpenSSL is still there. Without arguments it runs itself and looks; exit code 0: right.

#include <multiprocessing/connection.hpp>
#include <multiprocessing/util.hpp>

#include "checks.hpp"

#include <cstdio>
#include <filesystem>
#include <future>
#include <optional>
#include <string>

#include <unistd.h>

namespace mp = multiprocessing;
namespace fs = std::filesystem;

namespace {

const mp::bytes key("a key");

void handshake(const char* when) {
    const mp::connection::Listener listener({.authkey = key});
    auto client = std::async(std::launch::async, [&] {
        return mp::connection::Client(listener.address(), {.authkey = key, .timeout = 30});
    });
    listener.accept(30).send(std::string(when));
    std::puts(client.get().recv<std::string>().c_str());
}

struct AtTheEnd {
    ~AtTheEnd() { handshake("static"); }
};
std::optional<AtTheEnd> at_the_end;
std::optional<mp::connection::Listener> kept;

}  // namespace

int main(int argc, char* argv[]) {
    if (argc > 1) {
        at_the_end.emplace();
        mp::util::register_exit([] { handshake("exit function"); });
        fs::current_path(argv[1]);
        kept.emplace("socket");
        fs::current_path("/");
        handshake("main");
        return fs::is_socket(fs::path(argv[1]) / "socket") ? 3 : 1;
    }
    std::string folder = (fs::temp_directory_path() / "mp-static-XXXXXX").string();
    check(::mkdtemp(folder.data()) != nullptr, "a folder");
    const std::string self = fs::read_symlink("/proc/self/exe");
    FILE* const pipe = ::popen(("'" + self + "' '" + folder + "'").c_str(), "r");
    std::string out;
    for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) out += static_cast<char>(c);
    const int status = ::pclose(pipe);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 3, "it ends as it is to");
    check(out == "main\nexit function\nstatic\n", "it handshakes whenever it likes, not: " + out);
    check(fs::is_empty(folder), "the file of its address is gone");
    fs::remove_all(folder);
    return failures;
}
