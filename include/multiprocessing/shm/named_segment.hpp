// SPDX-License-Identifier: BSL-1.0
//
// Memory outside of the arena, with a name for processes of other trees. It is made without one, so
// that nobody ever finds it half made.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/named_memory.hpp>
#include <multiprocessing/shm/mapped_file.hpp>
#include <multiprocessing/shm/tracked_names.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace multiprocessing::shm {

/// Who takes the name away if nobody else does.
struct NameOwner {
    bool tree = false;        // the tree of processes, when it has ended
    std::uint64_t group = 0;  // a manager, before that
};

/// The memory in this process, for as long as this lives. It has no descriptor once it has a name.
class NamedSegment {
public:
    /// New memory of zeros, which has no name yet. Throws std::bad_alloc, std::system_error.
    explicit NamedSegment(std::uint64_t size)
        : NamedSegment(os::unnamed_memory(size), "new memory") {}
    /// What has the name. Throws std::system_error (ENOENT), ValueError for what has no size.
    static NamedSegment attach(const std::string& name) {
        NamedSegment segment(os::open_named_memory(name), name);
        segment.file_.reset();
        return segment;
    }

    /// Gives it its name. Returns false if another has it.
    [[nodiscard]] bool give_name(const std::string& name, NameOwner owner) {
        const auto identity = os::identity_of(file_);
        // Before, so that there is no moment at which a death would leave it. And nothing can fail
        // after it but the naming.
        const std::string plain(os::without_slashes(name));
        const Ticket entry = owner.tree ? track_name(plain, identity, owner.group) : Ticket{};
        bool given = false;
        try {
            given = os::give_name(file_, name);
        } catch (...) {
            untrack_name(entry);
            throw;
        }
        if (given) {
            file_.reset();
        } else {
            untrack_name(entry);
        }
        return given;
    }
    /// Takes a name away. Throws std::system_error (ENOENT).
    static void unlink(const std::string& name) { untrack_name(os::remove_name(name)); }

    [[nodiscard]] std::span<std::byte> bytes() const noexcept {
        return {static_cast<std::byte*>(region_.get_address()), region_.get_size()};
    }

private:
    NamedSegment(os::Fd file, const std::string& name) : file_(std::move(file)) {
        const std::uint64_t size = os::size_of(file_);
        if (size == 0) {
            throw ValueError("shared memory '" + name +
                             "' has no bytes, or not yet: whoever makes it "
                             "has not given it a size");
        }
        try {
            region_ = map_file(file_, size);
        } catch (const boost::interprocess::interprocess_exception& error) {
            throw_unmappable(error, name);
        }
    }

    os::Fd file_;
    boost::interprocess::mapped_region region_;
};

}  // namespace multiprocessing::shm
