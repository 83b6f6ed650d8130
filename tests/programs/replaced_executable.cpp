// SPDX-License-Identifier: BSL-1.0
//
// A program whose file is replaced while it runs: it starts what it is itself, or says that it
// cannot, and never runs an address of one build in another. Exit code 0: so it was.

#include <multiprocessing/context.hpp>

#include "checks.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>
#include <system_error>

#include <unistd.h>

namespace mp = multiprocessing;
namespace fs = std::filesystem;

namespace {

int exitcode(const std::string& method) {
    const auto p = mp::get_context(method).Process([] { mp::exit(21); });
    p.start();
    p.join(60);
    return p.exitcode().value_or(1000);
}

// What the start throws, if it is an Error; there is no process then.
template <class Error>
std::string refusal(const std::string& method) {
    const auto p = mp::get_context(method).Process([] { mp::exit(21); });
    try {
        p.start();
        p.join(60);
    } catch (const Error& error) {
        return p.pid() || !mp::active_children().empty() ? "a process all the same" : error.what();
    }
    return "nothing thrown";
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

void stop_server() { mp::runtime::this_process().fork_server.stop(); }

// As an installer does: another file under the same name.
void replace(const fs::path& file, const fs::path& by) {
    const fs::path fresh = file.string() + ".new";
    fs::copy_file(by, fresh);
    fs::rename(fresh, file);
}

int act() {
    const fs::path self = fs::read_symlink("/proc/self/exe");
    const fs::path folder = self.parent_path();
    const fs::path copy = folder / "copy";
    const fs::path script = folder / "script";
    fs::copy_file(self, copy);
    std::ofstream(script) << "#!/bin/sh\nexec '" << copy.string() << "' \"$@\"\n";
    fs::permissions(script, fs::perms::owner_all);

    for (const std::string method : {"spawn", "forkserver"}) {
        mp::set_executable(copy);
        check(exitcode(method) == 21, method + " of a copy");
        stop_server();
        mp::get_context(method).set_executable(script.c_str());
        check(exitcode(method) == 21, method + " of a script that executes a copy");
        stop_server();
        mp::set_executable("/bin/true");
        const std::string another = refusal<std::runtime_error>(method);
        check(contains(another, "/bin/true") && contains(another, "build id"),
              method + " of another program is refused, but: " + another);
        mp::set_executable(folder / "missing");
        check(contains(refusal<std::system_error>(method), "missing"), method + " of no file");
        mp::set_executable(folder);
        check(contains(refusal<std::exception>(method), folder.string()), method + " of a folder");
        fs::permissions(copy, fs::perms::owner_read);
        mp::set_executable(copy);
        if (::access(copy.c_str(), X_OK) != 0) {
            check(contains(refusal<std::system_error>(method), "copy"),
                  method + " of what may not be run");
        }
        fs::permissions(copy, fs::perms::owner_all);
        mp::set_executable("");
        check(exitcode(method) == 21, method + " of the program itself again");
        stop_server();
    }

    replace(self, "/bin/true");
    for (const std::string method : {"spawn", "forkserver"}) {
        check(exitcode(method) == 21, method + " when its name is another's: it is still itself");
        stop_server();
        mp::set_executable(self);
        const std::string replaced = refusal<std::runtime_error>(method);
        check(contains(replaced, "replaced") && contains(replaced, "build id"),
              method + " of a file that was replaced is refused, but: " + replaced);
        mp::set_executable("");
        fs::remove(self);
        check(exitcode(method) == 21, method + " when it has no name any more");
        stop_server();
        replace(self, "/bin/true");
    }
    return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char*[]) {
    mp::freeze_support();
    if (argc > 1) return act();
    const fs::path folder = fs::temp_directory_path() / ("replaced-" + std::to_string(::getpid()));
    fs::create_directory(folder);
    const fs::path copy = folder / "program";
    fs::copy_file("/proc/self/exe", copy);
    const int status = std::system(("'" + copy.string() + "' act").c_str());
    fs::remove_all(folder);
    return status == 0 ? 0 : 1;
}
