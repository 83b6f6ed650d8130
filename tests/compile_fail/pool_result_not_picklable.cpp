// SPDX-License-Identifier: BSL-1.0
//
// A result without serialize().
// EXPECT: what a pool's function returns must be picklable: give the type a serialize
#include <multiprocessing/pool.hpp>

struct Handle {
    std::vector<int>* owner = nullptr;
    virtual ~Handle() = default;
};
Handle make(int) { return {}; }

void all(const multiprocessing::Pool& pool) {
    pool.apply(make, 1);
}
