// SPDX-License-Identifier: BSL-1.0
//
// An item without serialize().
// EXPECT: what a pool's function is called with must be picklable: give the type a serialize
#include <multiprocessing/pool.hpp>

struct Handle {
    std::vector<int>* owner = nullptr;
    virtual ~Handle() = default;
};
int use(const Handle&) { return 0; }

std::vector<int> all(const multiprocessing::Pool& pool, const std::vector<Handle>& handles) {
    return pool.map(use, handles);
}
