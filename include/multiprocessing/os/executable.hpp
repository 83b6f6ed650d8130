// SPDX-License-Identifier: BSL-1.0
//
// Which file is run when this program is to be run anew, and whether it still is this program.
// Answers Python's `spawn.set_executable`.
#pragma once

#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/module.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/stat.h>
#include <unistd.h>

namespace multiprocessing::os {

/// Where the file lies that was chosen to be run; empty for this program's own.
class ExecutablePath {
public:
    [[nodiscard]] static std::string get() {
        const std::scoped_lock lock(chosen().mutex);
        return chosen().path;
    }
    static void set(std::string path) {
        const std::scoped_lock lock(chosen().mutex);
        chosen().path = std::move(path);
    }

private:
    struct Chosen {
        ForkAwareMutex mutex;
        std::string path;
    };
    [[nodiscard]] static Chosen& chosen() {
        static constinit Lazy<Chosen> made;
        return made.get([] { return new Chosen; });
    }
};

/// A file that may be run. What is checked is what is run: a program by its descriptor, whatever
/// has become of its name meanwhile; a script, which a descriptor cannot do, by its name.
class Executable {
public:
    /// The chosen one. Throws std::system_error when there is no such file, std::runtime_error when
    /// it is a program but not this one.
    [[nodiscard]] static Executable chosen();

    /// For execve.
    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] int descriptor() const noexcept { return file_.get(); }

private:
    Fd file_;
    // The file that this process was loaded from, even if another has its name by now.
    std::string path_ = "/proc/self/exe";
};

/// The id of the program in a file, as `this_program()` has it; nothing if there is no program.
[[nodiscard]] std::optional<std::uint64_t> program_in(int file);

// -------------------------------------------------------------------------------------------------

namespace executable_detail {

[[nodiscard]] inline bool read_at(int file, std::uint64_t offset, void* to, std::size_t size) {
    const auto got =
        retry_on_signal([&] { return ::pread(file, to, size, static_cast<off_t>(offset)); });
    return got == static_cast<ssize_t>(size);
}

}  // namespace executable_detail

inline std::optional<std::uint64_t> program_in(int file) {
    using executable_detail::read_at;
    ElfW(Ehdr) header;
    if (!read_at(file, 0, &header, sizeof header) ||
        std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
        header.e_phentsize != sizeof(ElfW(Phdr))) {
        return std::nullopt;
    }
    for (unsigned i = 0; i < header.e_phnum; ++i) {
        ElfW(Phdr) segment;
        if (!read_at(file, header.e_phoff + i * sizeof segment, &segment, sizeof segment)) break;
        if (segment.p_type != PT_NOTE) continue;
        constexpr std::size_t longest = 1 << 16;
        std::vector<std::byte> notes(std::min<std::size_t>(segment.p_filesz, longest));
        if (!read_at(file, segment.p_offset, notes.data(), notes.size())) break;
        if (const auto id = modules::build_id(notes.data(), notes.size()); id != 0) return id;
    }
    struct stat status {};
    if (::fstat(file, &status) != 0) throw_errno("fstat", "an executable");
    return modules::file_id(status);
}

inline Executable Executable::chosen() {
    Executable executable;
    std::string path = ExecutablePath::get();
    if (path.empty()) return executable;
    executable.file_ = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!executable.file_) throw_errno("open", "executable '" + path + "'");
    if (::access(path.c_str(), X_OK) != 0) throw_errno("access", "executable '" + path + "'");
    executable.file_ = clear_of_standard_streams(std::move(executable.file_));
    const auto program = program_in(executable.descriptor());
    if (!program) {
        executable.file_.reset();
        executable.path_ = std::move(path);
        return executable;
    }
    if (*program != this_program()) {
        throw std::runtime_error(
            "the executable '" + path +
            "' is another build than the program that runs (their build ids differ): it was "
            "replaced since this process started, or set_executable names another program. "
            "Restart, or name a copy of this one");
    }
    executable.path_ = "/proc/self/fd/" + std::to_string(executable.descriptor());
    return executable;
}

}  // namespace multiprocessing::os
