// SPDX-License-Identifier: BSL-1.0
//
// AddressSanitizer's allocator has locks that it does not renew in a forked child (those of GCC 12
// and LLVM 14): a child that is forked while another thread allocates waits for ever at its own next
// allocation. glibc's allocator has no such flaw, so this is the tests' to mend: no fork falls into
// their new and delete (the usual ones; those that are aligned or do not throw are hardly used).
#include "support/sanitized.hpp"

#if defined(TEST_IS_SANITIZED)

#include <cstddef>
#include <new>

#include <dlfcn.h>
#include <pthread.h>

namespace {

pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

void close_gate() { ::pthread_mutex_lock(&gate); }
void open_gate() { ::pthread_mutex_unlock(&gate); }

struct NoFork {
    NoFork() { close_gate(); }
    ~NoFork() { open_gate(); }
};

// Registered before all others of the program, so that it is the last to be closed: what the others
// do before a fork may allocate.
[[gnu::constructor(101)]] void keep_forks_out() {
    ::pthread_atfork(&close_gate, &open_gate, &open_gate);
}

// The sanitizer's own. Found at the first call, which is made long before there are threads.
template <class Function>
Function* sanitizers(Function*& found, const char* name) {
    if (found == nullptr) found = reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
    return found;
}

using Allocate = void*(std::size_t);
using Free = void(void*);
using FreeSized = void(void*, std::size_t);
Allocate* allocate;
Allocate* allocate_array;
Free* free_object;
Free* free_array;
FreeSized* free_sized;
FreeSized* free_sized_array;

}  // namespace

void* operator new(std::size_t size) {
    auto* const call = sanitizers(allocate, "_Znwm");
    const NoFork here;
    return call(size);
}

void* operator new[](std::size_t size) {
    auto* const call = sanitizers(allocate_array, "_Znam");
    const NoFork here;
    return call(size);
}

void operator delete(void* object) noexcept {
    auto* const call = sanitizers(free_object, "_ZdlPv");
    const NoFork here;
    call(object);
}

void operator delete[](void* array) noexcept {
    auto* const call = sanitizers(free_array, "_ZdaPv");
    const NoFork here;
    call(array);
}

void operator delete(void* object, std::size_t size) noexcept {
    auto* const call = sanitizers(free_sized, "_ZdlPvm");
    const NoFork here;
    call(object, size);
}

void operator delete[](void* array, std::size_t size) noexcept {
    auto* const call = sanitizers(free_sized_array, "_ZdaPvm");
    const NoFork here;
    call(array, size);
}

#endif
