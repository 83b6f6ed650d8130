// A pool that survives its functions: timeouts, retries after a death, and errors side by side.
// SPDX-License-Identifier: BSL-1.0
//
// CPython's Pool has none of these: get() of a task whose worker is killed waits for ever.
#include <multiprocessing.hpp>

#include <csignal>
#include <iostream>
#include <stdexcept>

namespace mp = multiprocessing;
using namespace std::chrono_literals;

// Dies at its first attempt at 2, always at 4, hangs at 6 and throws at 8.
int fragile(const mp::Value<int>& attempts, int x) {
    if (x == 2 && attempts.fetch_add(1) == 0) std::raise(SIGKILL);
    if (x == 4) std::raise(SIGKILL);
    while (x == 6 && !mp::this_task::stop_requested()) std::this_thread::sleep_for(1ms);
    if (x == 8) throw std::out_of_range("eight is too much");
    return x * x;
}

int main() {
    mp::Pool pool(2);
    const mp::Value<int> attempts(0);
    const auto results = pool.try_map({.timeout = 200ms, .retries = 1}, mp::partial(fragile, attempts),
                                      mp::range(0, 10, 2));
    for (std::size_t i = 0; i < results.size(); ++i) {
        std::cout << 2 * i << ": ";
        try {
            std::cout << results[i].value() << '\n';
        } catch (const mp::WorkerLostError& lost) {
            std::cout << "the worker ended with " << lost.exitcode() << ", twice\n";
        } catch (const mp::TaskTimeoutError&) {
            std::cout << "took too long\n";
        } catch (const std::out_of_range& error) {
            std::cout << error.what() << '\n';
        }
    }
    std::cout << "and it goes on: " << pool.apply([](int x) { return x + 1; }, 41) << '\n';
}
