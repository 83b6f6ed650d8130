// SPDX-License-Identifier: BSL-1.0
//
// exit() where no target is to be unwound: in main, and in a thread. The exit functions run and
// children are joined, as by std::exit.
#include <multiprocessing/process.hpp>
#include <multiprocessing/synchronize.hpp>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

namespace mp = multiprocessing;

namespace {

// The exit code of a process, not one of the library's, that goes on as if it were in main.
int end_of(const std::function<void()>& go_on) {
    std::fflush(nullptr);
    const int pid = ::fork();
    if (pid == 0) {
        go_on();
        std::_Exit(100);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void check(const char* what, int got, int expected) {
    if (got == expected) return;
    std::fprintf(stderr, "%s: the exit code is %d, not %d\n", what, got, expected);
    std::_Exit(1);
}

}  // namespace

int main() {
    check("in main", end_of([] { mp::exit(3); }), 3);
    check("with a message", end_of([] { mp::exit("said on stderr"); }), 1);
    check("in a thread", end_of([] { std::thread([] { mp::exit(4); }).join(); }), 4);
    check("in a thread of a child", end_of([] {
              mp::Process child([] { std::thread([] { mp::exit(5); }).join(); });
              child.start();
              child.join();
              std::_Exit(child.exitcode().value_or(101));
          }),
          5);
    check("with a child that runs", end_of([] {
              const mp::Event go;
              static const mp::Event done;
              mp::Process child([go, end = done] {
                  go.wait(30);
                  end.set();
              });
              std::atexit([] { std::_Exit(done.is_set() ? 6 : 102); });
              child.start();  // registers what is run before that
              go.set();
              mp::exit(7);
          }),
          6);
    check("another exception", end_of([] {
              std::fclose(stderr);
              try {
                  mp::exit(8);
              } catch (const mp::SystemExit&) {}
              throw 9;
          }),
          -SIGABRT);
    mp::exit();
}
