// SPDX-License-Identifier: BSL-1.0
//
// What is bound must travel too.
// EXPECT: a callable that travels to another process must be a function pointer, a captureless lambda
#include <multiprocessing/pool.hpp>

#include <mutex>
#include <memory>

int locked(const std::shared_ptr<std::mutex>&, int x) { return x; }

std::vector<int> all(const multiprocessing::Pool& pool) {
    return pool.map(multiprocessing::partial(locked, std::make_shared<std::mutex>()), {1, 2});
}
