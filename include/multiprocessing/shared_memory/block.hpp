// SPDX-License-Identifier: BSL-1.0
//
// `SharedMemory`: memory with a name, for processes that need not be related. A Python process
// opens what is made here, and the other way round. Answers Python's
// `multiprocessing.shared_memory`.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/random.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/pickle/std/sequence.hpp>
#include <multiprocessing/runtime/resource_tracker.hpp>
#include <multiprocessing/shm/named_segment.hpp>

#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

namespace multiprocessing::managers {
class SharedMemoryManager;
}

namespace multiprocessing::shared_memory {

/// A number of bytes, made from any integer, so that one which is negative or too large is seen.
class ByteCount {
public:
    template <std::integral Integer>
    constexpr ByteCount(Integer bytes) noexcept
        : bytes_(std::in_range<std::int64_t>(bytes) ? static_cast<std::int64_t>(bytes)
                                                    : std::numeric_limits<std::int64_t>::max()) {}
    [[nodiscard]] constexpr std::int64_t get() const noexcept { return bytes_; }

private:
    std::int64_t bytes_;
};

/// The arguments of `SharedMemory` by name.
struct SharedMemoryOptions {
    /// One word; if there is none, a new one is made up.
    std::optional<std::string> name = std::nullopt;
    /// Is it to be made, or there already?
    bool create = false;
    /// In bytes; of what is there already it is ignored.
    ByteCount size = 0;
    /// Is it to go with the tree of processes that makes it, if nobody has unlinked it before?
    bool track = true;
};

/// Elements in shared memory: a span that keeps the memory mapped, even after `close()`.
template <class T>
class View : public std::span<T> {
public:
    View() noexcept = default;
    View(std::span<T> elements, std::shared_ptr<const void> memory) noexcept
        : std::span<T>(elements), memory_(std::move(memory)) {}

private:
    std::shared_ptr<const void> memory_;
};

/// Memory with a name. *Python*: `multiprocessing.shared_memory.SharedMemory`.
///
///     mp::shared_memory::SharedMemory made({.name = "x", .create = true, .size = 4096});
///     mp::shared_memory::SharedMemory same("x");   // in another process, perhaps a Python one
///     same.as<double>()[0] = 1.5;
///     made.unlink();
///
/// A handle: copies in a process are one object, and to another it travels by its name, which that
/// process attaches to. The destructor of the last copy closes, and unlinks nothing. New memory is
/// all zeros, and all of it is there: who writes to it never meets SIGBUS.
///
/// *If a process dies*: nothing is lost or locked. What the whole tree of processes that made it
/// leaves behind, a process of its own unlinks, with a warning on stderr, unless `.track` is false.
/// Who only attaches never unlinks (Python's attaching processes do, before 3.13). *Process
/// safety*: all calls, from any thread; what is written to the memory is for a lock to guard.
class SharedMemory {
public:
    /// *Throws* ValueError for a size of 0 or less, for no name and nothing to create, for a name
    /// with a NUL in it; std::system_error: EEXIST, ENOENT, EINVAL for a name with a slash,
    /// ENAMETOOLONG, EFBIG; std::bad_alloc where /dev/shm has not so much memory, which what()
    /// says.
    SharedMemory(SharedMemoryOptions options) : SharedMemory(std::move(options), 0, nullptr) {}
    /// The same in Python's order. With a name alone it attaches.
    explicit SharedMemory(std::optional<std::string> name, bool create = false, ByteCount size = 0,
                          bool track = true)
        : SharedMemory(SharedMemoryOptions{std::move(name), create, size, track}) {}
    // Not to be moved from: a handle is one of the same object for as long as it lives.
    SharedMemory(const SharedMemory&) noexcept = default;
    SharedMemory& operator=(const SharedMemory&) noexcept = default;
    ~SharedMemory() = default;

    /// Its bytes. *Throws* ValueError when it is closed, as does as().
    [[nodiscard]] View<std::byte> buf() const { return as<std::byte>(); }
    /// Its bytes as so many T as there is room for.
    template <class T>
    [[nodiscard]] View<T> as() const;
    [[nodiscard]] const std::string& name() const noexcept { return state_->name; }
    /// In bytes, exactly as many as were asked for.
    [[nodiscard]] std::size_t size() const noexcept { return state_->size; }
    /// This process is done with it. Views that there are stay good. A second time is nothing.
    void close() const;
    /// Takes its name away: nobody finds it any more, and the memory goes with the last process
    /// that has it. *Throws* std::system_error, ENOENT when somebody has done so before.
    void unlink() const { shm::NamedSegment::unlink(state_->name); }

    /// The same object of this process?
    friend bool operator==(const SharedMemory& a, const SharedMemory& b) noexcept {
        return a.state_ == b.state_;
    }
    /// SharedMemory('psm_1234abcd', size=4096)
    friend std::ostream& operator<<(std::ostream& out, const SharedMemory& memory) {
        return out << "SharedMemory('" << memory.name() << "', size=" << memory.size() << ')';
    }

    using travels_as_handle = void;

private:
    friend struct pickle::HandleAccess;
    friend class ShareableList;
    friend class managers::SharedMemoryManager;
    struct State {
        std::string name;
        std::size_t size = 0;
        os::ForkAwareMutex mutex;
        std::shared_ptr<const shm::NamedSegment> segment;  // null when closed
    };
    /// Writes what is to be there before anybody can find it.
    using Prepare = std::function<void(std::span<std::byte>)>;

    SharedMemory(SharedMemoryOptions options, std::uint64_t group, const Prepare& prepare);
    explicit SharedMemory(pickle::Unread) noexcept {}
    void save_handle(pickle::OArchive& archive) const { archive << state_->name; }
    void load_handle(pickle::IArchive& archive) {
        std::string name;
        archive >> name;
        *this = SharedMemory(std::move(name));
    }
    [[nodiscard]] static std::string random_name();

    std::shared_ptr<State> state_;
};

// ---------------------------------------------------------------------------------------------------

template <class T>
View<T> SharedMemory::as() const {
    static_assert(
        std::is_trivially_copyable_v<T>,
        "what is in shared memory must be trivially copyable: anything else has parts that are "
        "in one process alone");
    std::shared_ptr<const shm::NamedSegment> segment;
    {
        const std::scoped_lock lock(state_->mutex);
        segment = state_->segment;
    }
    if (!segment) throw ValueError("SharedMemory '" + state_->name + "' is closed in this process");
    const std::span<std::byte> bytes = segment->bytes();
    return {std::span(reinterpret_cast<T*>(bytes.data()), bytes.size() / sizeof(T)),
            std::move(segment)};
}

inline void SharedMemory::close() const {
    std::shared_ptr<const shm::NamedSegment> segment;
    const std::scoped_lock lock(state_->mutex);
    segment.swap(state_->segment);
}

inline SharedMemory::SharedMemory(SharedMemoryOptions options, std::uint64_t group,
                                  const Prepare& prepare) {
    const std::int64_t size = options.size.get();
    if (size < 0)
        throw ValueError("SharedMemory: 'size' must be a positive integer, not " +
                         std::to_string(size));
    if (options.create && size == 0) {
        throw ValueError("SharedMemory: 'size' must be a positive number different from zero");
    }
    if (!options.name && !options.create) {
        throw ValueError("SharedMemory: 'name' can only be left out if .create is true");
    }
    if (options.name && options.name->find('\0') != std::string::npos) {
        throw ValueError("SharedMemory: there is a NUL in the name, after '" +
                         options.name->substr(0, options.name->find('\0')) + "'");
    }
    auto state = std::make_shared<State>();
    if (!options.create) {
        state->segment =
            std::make_shared<const shm::NamedSegment>(shm::NamedSegment::attach(*options.name));
        state->name = std::move(*options.name);
    } else {
        if (options.name) os::check_name(*options.name);  // before anything is made
        auto segment = std::make_shared<shm::NamedSegment>(static_cast<std::uint64_t>(size));
        if (prepare) prepare(segment->bytes());
        const shm::NameOwner owner{options.track, group};
        if (options.track) runtime::ensure_resource_tracker();
        state->name = options.name ? *options.name : random_name();
        while (!segment->give_name(state->name, owner)) {
            if (options.name) os::throw_error(EEXIST, "SharedMemory", "'" + state->name + "'");
            state->name = random_name();
        }
        state->segment = std::move(segment);
    }
    state->size = state->segment->bytes().size();
    state_ = std::move(state);
}

inline std::string SharedMemory::random_name() {
    static constexpr char digits[] = "0123456789abcdef";
    std::string name = "psm_";
    std::uint64_t number = os::random_number();
    for (int i = 0; i < 8; ++i, number /= 16) name += digits[number % 16];
    return name;
}

}  // namespace multiprocessing::shared_memory
