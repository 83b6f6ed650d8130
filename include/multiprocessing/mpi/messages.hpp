// SPDX-License-Identifier: BSL-1.0
//
// What a pool's master and its ranks tell each other. Both are the same build, so structures go as
// they lie in memory.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/module.hpp>
#include <multiprocessing/pickle/buffer.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace multiprocessing::mpi {

/// Whoever has been at one task for so long, and longer than was thought, is not to keep others waiting.
inline constexpr std::chrono::nanoseconds too_long = std::chrono::milliseconds(5);

/// The first word of a message.
enum class Kind : std::uint32_t {
    // From the master.
    open,      // a pool: Open, and its pickled settings
    function,  // that will be called: Function, whom to send it on to, its bytes
    forget,    // functions: Head, their ids
    slices,    // of tasks, to be run: Head, then each Slice, where its grains begin, its items
    cancel,    // tasks: Cancel, their ids
    close,     // a pool: Head
    leave,     // nothing else will come: Head
    // From a rank.
    outcomes,  // of items: Head, then each Outcome and its bytes
    failed,    // a pool's initializer: Head, the exception
    closed,    // a pool: Head
    alive,     // Head
    left,      // Head
};

/// How every message begins.
struct Head {
    Kind kind;
    std::uint32_t number = 0;  // of what follows; of `close`: 1 if what has not begun is not to be run
    std::uint64_t pool = 0;
};
struct Open {
    Kind kind = Kind::open;
    std::uint32_t worker = 0;  // the number of the rank in the pool: of its first worker
    std::uint64_t pool = 0;
    std::uint32_t processes = 0;  // of a local pool; 0: the rank itself
    std::uint32_t reserved = 0;
};
struct Function {
    Kind kind = Kind::function;
    std::uint32_t send_on = 0;  // how many ranks
    std::uint64_t pool = 0;
    std::uint64_t id = 0;
    os::CodeAddress maker;      // of the object that runs it in the rank itself
    os::CodeAddress entry;      // of what runs it in the processes of a local pool
    std::uint32_t item = 0;     // bytes of one, if it is nothing else
    std::uint32_t element = 0;  // bytes of a result, if it is nothing else
    std::uint64_t size = 0;
};
struct Slice {
    std::uint64_t task = 0;
    std::uint64_t function = 0;
    std::uint64_t base = 0;   // the number in the job of the task's first item
    std::uint32_t first = 0;  // of the task's items
    std::uint32_t count = 0;
    std::uint32_t grain = 1;  // so many are run together
    std::uint32_t retries = 0;
    std::int64_t timeout = 0;  // nanoseconds
    std::int64_t grace = 0;
    std::uint64_t size = 0;  // of the items
    std::uint32_t has_places = 0;  // where each grain begins comes before them
    std::uint32_t reserved = 0;

    [[nodiscard]] std::uint32_t grains() const noexcept { return (count + grain - 1) / grain; }
};
struct Cancel {
    Kind kind = Kind::cancel;
    std::uint32_t count = 0;
    std::uint64_t pool = 0;
    std::uint64_t asks_to_stop = 0;
};
struct Outcome {
    enum class What : std::uint32_t {
        array,     // values that are nothing but their bytes
        value,     // one, pickled
        error,     // one exception
        late,      // it takes too long, and goes on
        freed,     // these have ended, and nobody wants to know how
        returned,  // these have not begun, and are for others to run
        spent,     // so long, on so many items of the function (as its task), the first of this number
    };
    std::uint64_t task = 0;
    What what = What::freed;
    std::uint32_t item = 0;  // of the task
    std::uint32_t count = 1;
    std::uint32_t waited = 0;  // microseconds before it was begun; of `spent`
    std::uint64_t size = 0;    // of the bytes; of `spent`: nanoseconds
};

/// That a slice has taken so many nanoseconds, after a rank had waited for it for so many microseconds.
[[nodiscard]] inline Outcome spent(const Slice& slice, std::uint64_t waited, std::uint64_t taken) noexcept {
    return {slice.function, Outcome::What::spent, static_cast<std::uint32_t>(slice.base + slice.first),
            slice.count, static_cast<std::uint32_t>(waited), taken};
}

template <class T>
    requires std::is_trivially_copyable_v<T>
void append(pickle::Buffer& buffer, const T& structure) {
    buffer.append(&structure, sizeof structure);
}

/// Goes through a message. Throws UnpicklingError at a premature end.
class MessageReader {
public:
    explicit MessageReader(std::span<const std::byte> bytes) noexcept : rest_(bytes) {}

    template <class T>
        requires std::is_trivially_copyable_v<T>
    [[nodiscard]] T get() {
        T structure;
        std::memcpy(static_cast<void*>(&structure), take(sizeof structure).data(), sizeof structure);
        return structure;
    }
    [[nodiscard]] std::span<const std::byte> take(std::uint64_t size) {
        if (size > rest_.size()) {
            throw UnpicklingError("a message between the ranks of a pool ends in the middle");
        }
        const auto taken = rest_.first(static_cast<std::size_t>(size));
        rest_ = rest_.subspan(taken.size());
        return taken;
    }
    [[nodiscard]] std::span<const std::byte> rest() const noexcept { return rest_; }
    [[nodiscard]] bool at_end() const noexcept { return rest_.empty(); }

private:
    std::span<const std::byte> rest_;
};

/// A slice, where its grains begin, and its items.
struct ReadSlice {
    Slice slice;
    std::span<const std::byte> places;
    std::span<const std::byte> items;
};
[[nodiscard]] inline ReadSlice read_slice(MessageReader& reader) {
    const auto slice = reader.get<Slice>();
    const auto places =
        reader.take(slice.has_places != 0 ? slice.grains() * sizeof(std::uint64_t) : 0);
    return {slice, places, reader.take(slice.size)};
}

[[nodiscard]] inline Kind kind_of(std::span<const std::byte> message) {
    return MessageReader(message).get<Kind>();
}

}  // namespace multiprocessing::mpi
