// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/shm/arena.hpp>
#include <support/guard.hpp>

namespace support {

void warm_up() {
    multiprocessing::shm::Arena::instance();
}

}  // namespace support
