// SPDX-License-Identifier: BSL-1.0
//
// Memory with a name that unrelated processes find it by: files of the memory file system at
// /dev/shm, where shm_open(3) has them too. A name appears whole or not at all, with memory for all
// of its bytes behind it. Answers Python's `_posixshmem`.
#pragma once

#include <multiprocessing/os/bound.hpp>
#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/memfd.hpp>

#include <algorithm>
#include <array>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace multiprocessing::os {

/// Which file it is, whatever its name is by now.
struct FileIdentity {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

/// There is no memory left for named memory. It is a std::bad_alloc that says how much there was.
class NoNamedMemory : public std::bad_alloc {
public:
    NoNamedMemory(std::uint64_t asked, std::uint64_t available) noexcept {
        std::snprintf(
            text_.data(), text_.size(),
            "no memory for %llu bytes of named shared memory: %llu bytes are left in /dev/shm",
            static_cast<unsigned long long>(asked), static_cast<unsigned long long>(available));
    }
    [[nodiscard]] const char* what() const noexcept override { return text_.data(); }

private:
    std::array<char, 128> text_;
};

/// A name without the slashes that it may begin with, as for shm_open.
[[nodiscard]] inline std::string_view without_slashes(std::string_view name) noexcept {
    while (name.starts_with('/')) name.remove_prefix(1);
    return name;
}

namespace named_memory {

inline constexpr char folder[] = "/dev/shm";

/// The file of a name. Throws std::system_error for what can be none.
[[nodiscard]] inline std::string path_of(std::string_view name) {
    const std::string_view file = without_slashes(name);
    const bool wrong = file.empty() || file == "." || file == ".." ||
                       file.find('/') != std::string_view::npos ||
                       file.find('\0') != std::string_view::npos;
    if (wrong) {
        throw_error(EINVAL, "shm_open",
                    "'" + std::string(name) +
                        "': a name of shared memory is one word without slashes");
    }
    if (file.size() > NAME_MAX) {
        throw_error(ENAMETOOLONG, "shm_open",
                    "a name of " + std::to_string(file.size()) + " bytes");
    }
    return std::string(folder) + '/' + std::string(file);
}

/// The same without allocating, for a name without slashes that path_of() has taken.
class PathBuffer {
public:
    explicit PathBuffer(const char* name) noexcept {
        char* end = copy(text_.data(), folder);
        *end++ = '/';
        *copy(end, name) = '\0';
    }
    [[nodiscard]] const char* get() const noexcept { return text_.data(); }

private:
    char* copy(char* to, const char* from) const noexcept {
        while (*from != '\0' && to + 1 < text_.data() + text_.size()) *to++ = *from++;
        return to;
    }
    std::array<char, sizeof folder + NAME_MAX + 2> text_;
};

/// How much memory there is for names.
class Room {
public:
    Room() noexcept { known_ = ::statvfs(folder, &room_) == 0; }
    [[nodiscard]] bool limited() const noexcept { return known_ && room_.f_blocks != 0; }
    [[nodiscard]] std::uint64_t available() const noexcept {
        return std::uint64_t{room_.f_bavail} * room_.f_frsize;
    }

private:
    struct ::statvfs room_ {};
    bool known_;
};

[[nodiscard]] inline FileIdentity identity(const struct ::stat& status) noexcept {
    return {static_cast<std::uint64_t>(status.st_dev), static_cast<std::uint64_t>(status.st_ino)};
}

}  // namespace named_memory

/// Throws std::system_error for what can be no name (EINVAL, ENAMETOOLONG).
inline void check_name(std::string_view name) { static_cast<void>(named_memory::path_of(name)); }

[[nodiscard]] inline FileIdentity identity_of(const Fd& fd) {
    struct ::stat status {};
    if (::fstat(fd.get(), &status) != 0) throw_errno("fstat", "shared memory");
    return named_memory::identity(status);
}

/// Memory that can be given a name, and has none yet: it goes with its last descriptor and mapping.
/// Throws std::bad_alloc when there is none.
[[nodiscard]] inline Fd unnamed_memory(std::uint64_t size) {
    // A file beyond a limit (ulimit -f) would end this process with SIGXFSZ.
    const auto most = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());
    if (size > std::min(most, file_size_limit())) {
        throw_error(EFBIG, "ftruncate", std::to_string(size) + " bytes of shared memory");
    }
    Fd fd(::open(named_memory::folder, O_TMPFILE | O_RDWR | O_CLOEXEC, S_IRUSR | S_IWUSR));
    if (!fd) throw_errno("open(O_TMPFILE)", named_memory::folder);
    fd = clear_of_standard_streams(std::move(fd));
    if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0)
        throw_errno("ftruncate", "shared memory");
    // Before some of it is taken that has to be given back. (Without a limit there are no blocks.)
    const named_memory::Room room;
    if (room.limited() && room.available() < size) throw NoNamedMemory(size, room.available());
    // In parts: a signal makes the kernel take back what it has given in a call.
    constexpr std::uint64_t part = std::uint64_t{16} << 20;
    for (std::uint64_t at = 0; at < size; at += part) {
        try {
            commit(fd.get(), at, std::min(part, size - at));
        } catch (const std::bad_alloc&) {
            throw NoNamedMemory(size, named_memory::Room().available());
        }
    }
    return fd;
}

/// Gives unnamed memory its name. Returns false if there is one of that name; throws
/// std::system_error.
[[nodiscard]] inline bool give_name(const Fd& memory, std::string_view name) {
    const std::string path = named_memory::path_of(name);
    const std::string here = "/proc/self/fd/" + std::to_string(memory.get());
    if (::linkat(AT_FDCWD, here.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0)
        return true;
    if (errno == EEXIST) return false;
    throw_errno("linkat", path);
}

/// Opens what has the name. Throws std::system_error (ENOENT).
[[nodiscard]] inline Fd open_named_memory(std::string_view name) {
    const std::string path = named_memory::path_of(name);
    Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (!fd) throw_errno("shm_open", path);
    return clear_of_standard_streams(std::move(fd));
}

[[nodiscard]] inline std::uint64_t size_of(const Fd& fd) {
    struct ::stat status {};
    if (::fstat(fd.get(), &status) != 0) throw_errno("fstat", "shared memory");
    return static_cast<std::uint64_t>(status.st_size);
}

/// Takes a name away and says what had it. Throws std::system_error (ENOENT).
inline FileIdentity remove_name(std::string_view name) {
    const std::string path = named_memory::path_of(name);
    struct ::stat status {};
    if (::lstat(path.c_str(), &status) != 0 || ::unlink(path.c_str()) != 0) {
        throw_errno("shm_unlink", path);
    }
    return named_memory::identity(status);
}

/// Whether the file still has the name. Allocates nothing, nor does what follows.
[[nodiscard]] inline bool has_name(const char* name, FileIdentity identity) noexcept {
    struct ::stat status {};
    const named_memory::PathBuffer path(name);
    return bound<&::lstat>(path.get(), &status) == 0 && named_memory::identity(status) == identity;
}

/// Takes a name away if the file still has it. 0, or why not (ENOENT: it is gone, or another's).
[[nodiscard]] inline int remove_name_of(const char* name, FileIdentity identity) noexcept {
    if (!has_name(name, identity)) return ENOENT;
    return bound<&::unlink>(named_memory::PathBuffer(name).get()) == 0 ? 0 : errno;
}

}  // namespace multiprocessing::os
