// SPDX-License-Identifier: BSL-1.0
//
// What a tree of processes leaves behind in /dev/shm when it ends, in order or not: nothing that it
// made and was to be tracked, and everything else. The program runs itself as such trees. Exit code
// 0: it is so. (CPython: _TestSharedMemory's cases of tracking, and TestResourceTracker's of ends.)
#include <multiprocessing/process.hpp>
#include <multiprocessing/shared_memory.hpp>

#include "checks.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

namespace mp = multiprocessing;
namespace os = multiprocessing::os;
using mp::shared_memory::SharedMemory;
using namespace std::chrono_literals;

namespace {

std::string message(int count, const std::string& names) {
    return "resource_tracker: There appear to be " + std::to_string(count) +
           " leaked shared_memory objects to clean up at shutdown: " + names + "\n";
}
std::string message(const std::string& name) { return message(1, "'" + name + "'"); }

bool exists(const std::string& name) { return ::access(("/dev/shm/" + name).c_str(), F_OK) == 0; }

bool eventually(const std::function<bool()>& predicate) {
    const auto deadline = os::Deadline::after(20s);
    while (!predicate()) {
        if (deadline.expired()) return false;
        std::this_thread::sleep_for(1ms);
    }
    return true;
}

std::string read_all(int fd) {
    std::string text;
    std::array<char, 512> part;
    for (ssize_t size; (size = ::read(fd, part.data(), part.size())) > 0;) {
        text.append(part.data(), static_cast<std::size_t>(size));
    }
    return text;
}

// This program as another tree of processes. What its trackers do as well: they become children of
// this process, which is their subreaper.
class Tree {
public:
    explicit Tree(const std::string& role, const std::string& name) {
        auto [out, out_end] = os::pipe();
        auto [err, err_end] = os::pipe();
        auto [in_end, in] = os::pipe();
        ::posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        ::posix_spawn_file_actions_adddup2(&actions, in_end.get(), STDIN_FILENO);
        ::posix_spawn_file_actions_adddup2(&actions, out_end.get(), STDOUT_FILENO);
        ::posix_spawn_file_actions_adddup2(&actions, err_end.get(), STDERR_FILENO);
        std::string arguments[] = {"leaked_names", role, name};
        char* argv[] = {arguments[0].data(), arguments[1].data(), arguments[2].data(), nullptr};
        if (::posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, argv, environ) != 0)
            std::abort();
        ::posix_spawn_file_actions_destroy(&actions);
        out_ = std::move(out);
        err_ = std::move(err);
        in_ = std::move(in);
    }
    Tree(const Tree&) = delete;
    Tree& operator=(const Tree&) = delete;
    ~Tree() {
        if (pid_ == 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
    // A number that it says; 0 when it says nothing more.
    int hear() const {
        int number = 0;
        return ::read(out_.get(), &number, sizeof number) == sizeof number ? number : 0;
    }
    void kill(int signal) const { ::kill(pid_, signal); }
    // It may go on, to its end.
    void release() { in_.reset(); }
    int wait() {
        in_.reset();
        int status = 0;
        ::waitpid(std::exchange(pid_, 0), &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }
    // What the whole of it has written; comes when all of it has ended.
    std::string errors() const { return read_all(err_.get()); }

private:
    pid_t pid_ = 0;
    os::Fd out_;
    os::Fd err_;
    os::Fd in_;
};

// The exit code of a tracker, which is a child of this process by now.
int tracker_exitcode(int tracker) {
    int status = 0;
    const bool ended = eventually([&] { return ::waitpid(tracker, &status, WNOHANG) == tracker; });
    return ended && WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
}

// In a tree -------------------------------------------------------------------------------------

void say(int number) {
    [[maybe_unused]] const auto written = ::write(STDOUT_FILENO, &number, sizeof number);
}
void say_tracker() { say(mp::runtime::resource_tracker_pid().value_or(-1)); }
void await_release() { static_cast<void>(read_all(STDIN_FILENO)); }

void make(const std::string& name, bool track = true) {
    const SharedMemory memory({.name = name, .create = true, .size = 10, .track = track});
}

const std::map<std::string, std::function<void(const std::string&)>> roles{
    {"makes and waits",
     [](const std::string& name) {
         make(name);
         say_tracker();
         await_release();
     }},
    {"makes and unlinks",
     [](const std::string& name) {
         const SharedMemory memory({.name = name, .create = true, .size = 10});
         say_tracker();
         memory.unlink();
     }},
    {"makes untracked",
     [](const std::string& name) {
         make(name, false);
         say_tracker();
     }},
    {"attaches",
     [](const std::string& name) { SharedMemory({.name = name, .track = true}).close(); }},
    {"leaves a child behind",
     [](const std::string& name) {
         make(name);
         say_tracker();
         const mp::Process child({.daemon = false}, [] { ::pause(); });
         child.start();
         say(child.pid().value_or(0));
         ::_exit(0);
     }},
    {"leaves a child of its own fork behind",
     [](const std::string& name) {
         make(name);
         say_tracker();
         const int child = ::fork();
         if (child == 0) {  // as daemons do
             for (int fd = 0; fd < 1024; ++fd) {
                 if (fd != STDERR_FILENO) ::close(fd);
             }
             ::pause();
         }
         say(child);
     }},
    {"makes in spawned children",
     [](const std::string& name) {
         const auto tracker = [](const std::string& mine) {
             make(mine);
             mp::exit(mp::runtime::resource_tracker_pid() ? 0 : 1);
         };
         for (const char* method : {"spawn", "forkserver", "fork"}) {
             mp::Process child(
                 {.context = mp::runtime::ContextBase(mp::runtime::start_method_named(method))},
                 tracker, name + method);
             child.start();
             child.join();
             say(child.exitcode() == 0 ? *mp::runtime::resource_tracker_pid() : -1);
         }
     }},
};

// From outside ----------------------------------------------------------------------------------

void ends_of_one(const std::string& name) {
    for (const int signal : {SIGTERM, SIGKILL, SIGSEGV, 0}) {
        Tree tree("makes and waits", name);
        const int tracker = tree.hear();
        check(tracker > 0 && exists(name), "it is there");
        signal != 0 ? tree.kill(signal) : tree.release();
        check(tree.wait() == -signal, "the end by " + std::to_string(signal));
        check(tree.errors() == message(name), "what is said of a leak");
        check(!exists(name), "the name is gone after " + std::to_string(signal));
        check(tracker_exitcode(tracker) == 1, "the exit code after a leak");
    }
    Tree tree("makes and unlinks", name);
    const int tracker = tree.hear();
    check(tree.wait() == 0 && tree.errors().empty(), "nothing is said where nothing is left");
    check(tracker_exitcode(tracker) == 0, "the exit code where nothing is left");
}

void untracked(const std::string& name) {
    Tree tree("makes untracked", name);
    check(tree.hear() == -1, "no tracker for what is not tracked");
    check(tree.wait() == 0 && tree.errors().empty() && exists(name), "untracked: it stays");
    Tree other("attaches", name);
    check(other.wait() == 0 && other.errors().empty() && exists(name),
          "who attaches unlinks nothing");
    SharedMemory(name).unlink();
}

void those_who_are_left(const std::string& name) {
    for (const char* role : {"leaves a child behind", "leaves a child of its own fork behind"}) {
        Tree tree(role, name);
        const int tracker = tree.hear();
        const int child = tree.hear();
        check(tracker > 0 && child > 0, role);
        tree.kill(SIGKILL);
        Tree waits_for_nobody("makes and unlinks", name + "other");
        check(waits_for_nobody.wait() == 0, "an end that nobody holds up");
        check(exists(name), std::string("there as long as the child is: ") + role);
        ::kill(child, SIGKILL);
        check(tree.errors() == message(name) && !exists(name),
              std::string("gone with the child: ") + role);
        tree.wait();
        check(tracker_exitcode(tracker) == 1, "its exit code");
    }
}

void another_file_of_the_name(const std::string& name) {
    Tree tree("makes and waits", name);
    const int tracker = tree.hear();
    // As somebody does who is of no tree of ours.
    const std::string path = "/dev/shm/" + name;
    ::unlink(path.c_str());
    const os::Fd file(::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600));
    tree.kill(SIGKILL);
    check(tree.errors().empty(), "what another made is not leaked");
    check(exists(name), "what another made is not unlinked");
    check(tracker_exitcode(tracker) == 0, "its exit code");
    ::unlink(path.c_str());
}

void several_processes(const std::string& name) {
    Tree tree("makes in spawned children", name);
    const int tracker = tree.hear();
    check(tracker > 0 && tree.hear() == tracker && tree.hear() == tracker,
          "one tracker for a tree");
    check(tree.wait() == 0, "its end");
    const std::string errors = tree.errors();
    check(errors.starts_with(message(3, "").substr(0, message(3, "").size() - 1)),
          "three are counted");
    for (const char* method : {"spawn", "forkserver", "fork"}) {
        check(errors.find("'" + name + method + "'") != std::string::npos, "they are named");
    }
    check(!exists(name + "spawn") && !exists(name + "forkserver") && !exists(name + "fork"),
          "all are gone");
    check(tracker_exitcode(tracker) == 1, "its exit code");
}

void a_tracker_that_is_stopped(const std::string& name) {
    Tree tree("makes and unlinks", name);
    const int tracker = tree.hear();
    ::kill(tracker, SIGSTOP);
    check(tree.wait() == 0, "nobody waits for a tracker");
    ::kill(tracker, SIGCONT);
    check(tracker_exitcode(tracker) == 0, "its exit code");
}

}  // namespace

int main(int argc, char* argv[]) {
    mp::freeze_support();
    if (argc == 3) {
        roles.at(argv[1])(argv[2]);
        return 0;
    }
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    const std::string name = "mp_leaked_" + std::to_string(::getpid());
    ends_of_one(name);
    untracked(name);
    those_who_are_left(name);
    another_file_of_the_name(name);
    several_processes(name);
    a_tracker_that_is_stopped(name);
    return failures;
}
