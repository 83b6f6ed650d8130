// SPDX-License-Identifier: BSL-1.0
#include <cstdlib>

namespace multiprocessing {

inline int answer() {
    static const int made = std::rand();
    thread_local const int own = std::rand();
    return made + own;
}

}  // namespace multiprocessing

int main() {
    return multiprocessing::answer() == 0 ? 1 : 0;
}
