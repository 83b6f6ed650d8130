// SPDX-License-Identifier: BSL-1.0
//
// With little memory, messages that find no room are std::bad_alloc and change nothing: the queue or
// pipe goes on, and nobody is killed by SIGBUS.
#include <multiprocessing.hpp>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include <cerrno>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace mp = multiprocessing;

namespace {

void check(const char* what, bool good) {
    if (good) return;
    std::printf("%s: not so\n", what);
    std::exit(1);
}

template <class F>
bool finds_no_memory(F f) {
    try {
        f();
    } catch (const std::bad_alloc&) {
        return true;
    }
    return false;
}

constexpr std::size_t mib = std::size_t{1} << 20;

/// A limit of file sizes, which shared memory is under, too, to the kernel.
void with_small_files(std::size_t bytes, bool works) {
    const pid_t pid = ::fork();
    if (pid == 0) {
        const ::rlimit limit{bytes, bytes};
        if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(2);
        try {
            const mp::Queue<int> queue;
            queue.put(1);
            ::_exit(queue.get() == 1 && works ? 0 : 1);
        } catch (const std::system_error& error) {
            ::_exit(error.code().value() == EFBIG && !works ? 0 : 1);
        }
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    check("a limit of file sizes is kept", status == 0);
}

}  // namespace

int main() {
    with_small_files(100, false);
    with_small_files(700 * mib, true);

    // Before the library reserves address space: it takes as much as it can get.
    const ::rlimit limit{1024 * mib, 1024 * mib};
    if (::setrlimit(RLIMIT_AS, &limit) != 0) return 1;

    const mp::Queue<std::string> queue;
    const std::string too_long(300 * mib, 'x');
    queue.put("before");
    check("put of too much throws", finds_no_memory([&] { queue.put(too_long); }));
    check("so does put_many", finds_no_memory([&] {
              queue.put_many(std::vector<std::string>{"first", std::string(200 * mib, 'y')});
          }));
    check("what came before it has been put", queue.qsize() == 2);
    check("and is whole", queue.get() == "before" && queue.get() == "first");

    // Full is not broken.
    const std::string slab(8 * mib, 's');
    std::size_t put = 0;
    check("the queue takes what there is memory for", finds_no_memory([&] {
              for (;; ++put) queue.put(slab);
          }));
    check("and no more", put > 2 && queue.qsize() == put);
    check("short items find room all the same", !finds_no_memory([&] { queue.put("after"); }));
    for (; put != 0; --put) check("all are there", queue.get() == slab);
    check("in order", queue.get() == "after");
    queue.put(slab);
    check("and there is memory again", queue.get() == slab);

    const auto [a, b] = mp::Pipe();
    check("send of too much throws", finds_no_memory([&, &a = a] { a.send(too_long); }));
    check("send_bytes too", finds_no_memory([&, &a = a] { a.send_bytes(too_long); }));
    check("nothing was sent", !b.poll());
    a.send(slab);
    check("the pipe goes on", b.recv<std::string>() == slab);
}
