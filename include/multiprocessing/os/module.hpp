// SPDX-License-Identifier: BSL-1.0
//
// Addresses of code that mean the same in another process of the program, wherever the loader has
// put its modules there: the module (the executable or a shared library, known by its build id) and
// the distance from where it is loaded.
#pragma once

#include <multiprocessing/os/fork.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <elf.h>
#include <limits.h>
#include <link.h>
#include <sys/stat.h>
#include <unistd.h>

namespace multiprocessing::os {

/// A place in a module. Both 0: nowhere.
struct CodeAddress {
    std::uint64_t module = 0;
    std::uint64_t offset = 0;
    bool operator==(const CodeAddress&) const = default;
};

/// Where `address` lies, or nowhere when it is in no module.
[[nodiscard]] CodeAddress locate(const void* address);

/// The address in this process; null when the module is not loaded here or has no code there.
[[nodiscard]] const void* resolve(CodeAddress code);

/// The id of the module that is the program: another for every build.
[[nodiscard]] std::uint64_t this_program();

/// The file that this program was started from.
[[nodiscard]] std::string this_executable();

/// Looks for modules that were loaded since the last look. Before a fork, so that the child need not
/// ask the loader for them: another thread may be loading one, with a lock held that the child would
/// wait for.
void note_modules();

/// A pointer to a member function as the Itanium C++ ABI has it, with its two words told apart:
/// the address of code, or the place in the table of virtual functions.
struct MemberPointer {
    std::uintptr_t function;
    std::ptrdiff_t adjustment;
    [[nodiscard]] bool is_virtual() const noexcept {
#if defined(__arm__) || defined(__aarch64__)
        return (adjustment & 1) != 0;
#else
        return (function & 1) != 0;
#endif
    }
};

// -------------------------------------------------------------------------------------------------

namespace modules {

struct Range {
    std::uintptr_t begin;
    std::uintptr_t end;
};

struct Module {
    std::uint64_t id;
    std::uintptr_t base;
    std::vector<Range> code;
};

/// The modules at one time. Never changed and never freed: readers take no lock.
struct Snapshot {
    std::vector<Module> modules;
    std::uint64_t changes = 0;
    const Snapshot* previous = nullptr;
};

inline constinit std::atomic<const Snapshot*> newest{nullptr};

[[nodiscard]] inline std::uint64_t hash_bytes(const void* bytes, std::size_t size) noexcept {
    std::uint64_t hash = 0xcbf29ce484222325u;
    for (std::size_t i = 0; i < size; ++i)
        hash = (hash ^ static_cast<const unsigned char*>(bytes)[i]) * 0x100000001b3u;
    return hash | 1;  // 0 is no module
}

/// Looks for the build id in a segment of notes.
[[nodiscard]] inline std::uint64_t build_id(const std::byte* notes, std::size_t size) noexcept {
    const auto aligned = [](std::size_t length) { return (length + 3) & ~std::size_t{3}; };
    while (size >= sizeof(ElfW(Nhdr))) {
        ElfW(Nhdr) header;
        std::memcpy(&header, notes, sizeof header);
        const std::size_t name = sizeof header;
        const std::size_t content = name + aligned(header.n_namesz);
        const std::size_t whole = content + aligned(header.n_descsz);
        if (whole > size) return 0;
        if (header.n_type == NT_GNU_BUILD_ID && header.n_namesz == 4 &&
            std::memcmp(notes + name, "GNU", 4) == 0)
            return hash_bytes(notes + content, header.n_descsz);
        notes += whole;
        size -= whole;
    }
    return 0;
}

/// For a module that was linked without a build id: which file it is.
[[nodiscard]] inline std::uint64_t file_id(const struct stat& status) noexcept {
    const std::uint64_t identity[] = {static_cast<std::uint64_t>(status.st_dev),
                                      static_cast<std::uint64_t>(status.st_ino),
                                      static_cast<std::uint64_t>(status.st_size)};
    return hash_bytes(identity, sizeof identity);
}

[[nodiscard]] inline std::uint64_t file_id(const char* path) noexcept {
    struct stat status {};
    if (::stat(path[0] == '\0' ? "/proc/self/exe" : path, &status) != 0)
        return hash_bytes(path, std::strlen(path));
    return file_id(status);
}

inline int add(dl_phdr_info* info, std::size_t, void* into) {
    auto& snapshot = *static_cast<Snapshot*>(into);
    Module module{0, info->dlpi_addr, {}};
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const auto& segment = info->dlpi_phdr[i];
        const std::uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
        if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X) != 0)
            module.code.push_back({begin, begin + segment.p_memsz});
        if (segment.p_type == PT_NOTE && module.id == 0)
            module.id = build_id(reinterpret_cast<const std::byte*>(begin), segment.p_memsz);
    }
    if (module.id == 0) module.id = file_id(info->dlpi_name);
    snapshot.modules.push_back(std::move(module));
    return 0;
}

/// How often a module was loaded or unloaded.
[[nodiscard]] inline std::uint64_t changes() {
    std::uint64_t count = 0;
    ::dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t size, void* into) {
            if (size >= offsetof(dl_phdr_info, dlpi_subs) + sizeof info->dlpi_subs)
                *static_cast<std::uint64_t*>(into) = info->dlpi_adds + info->dlpi_subs;
            return 1;
        },
        &count);
    return count;
}

/// A newer list than `seen`, or null when nothing has changed since.
[[nodiscard]] inline const Snapshot* refresh(const Snapshot* seen) {
    const NoFork while_the_loader_is_asked;
    const std::uint64_t now = changes();
    if (seen != nullptr && seen->changes == now) return nullptr;
    auto snapshot = std::make_unique<Snapshot>();
    snapshot->changes = now;
    ::dl_iterate_phdr(&add, snapshot.get());
    snapshot->previous = newest.load(std::memory_order_relaxed);
    // release: who finds the list sees what is in it.
    while (!newest.compare_exchange_weak(snapshot->previous, snapshot.get(),
                                         std::memory_order_release, std::memory_order_relaxed)) {}
    return snapshot.release();
}

/// Asks `question` of every module until it answers, of those loaded meanwhile too.
template <class Question>
[[nodiscard]] auto ask(Question question) {
    const Snapshot* snapshot = newest.load(std::memory_order_acquire);
    for (;;) {
        if (snapshot != nullptr)
            for (const auto& module : snapshot->modules)
                if (auto answer = question(module); answer != decltype(answer){}) return answer;
        const Snapshot* const fresh = refresh(snapshot);
        if (fresh == nullptr) return decltype(question(snapshot->modules.front())){};
        snapshot = fresh;
    }
}

}  // namespace modules

inline std::string this_executable() {
    char path[PATH_MAX];
    const auto length = ::readlink("/proc/self/exe", path, sizeof path);
    return length > 0 ? std::string(path, static_cast<std::size_t>(length)) : "/proc/self/exe";
}

inline std::uint64_t this_program() {
    // The first that dl_iterate_phdr tells of is the program itself.
    return modules::ask([](const modules::Module& module) { return module.id; });
}

inline void note_modules() {
    static_cast<void>(modules::refresh(modules::newest.load(std::memory_order_acquire)));
}

inline CodeAddress locate(const void* address) {
    const auto wanted = reinterpret_cast<std::uintptr_t>(address);
    return modules::ask([wanted](const modules::Module& module) -> CodeAddress {
        for (const auto& range : module.code)
            if (wanted >= range.begin && wanted < range.end)
                return {module.id, wanted - module.base};
        return {};
    });
}

inline const void* resolve(CodeAddress code) {
    return modules::ask([code](const modules::Module& module) -> const void* {
        if (module.id != code.module) return nullptr;
        const std::uintptr_t address = module.base + static_cast<std::uintptr_t>(code.offset);
        for (const auto& range : module.code)
            if (address >= range.begin && address < range.end)
                return reinterpret_cast<const void*>(address);
        return nullptr;
    });
}

}  // namespace multiprocessing::os
