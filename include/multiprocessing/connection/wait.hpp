// SPDX-License-Identifier: BSL-1.0
//
// `mp::connection::wait`: for several connections, processes and other descriptors at once. Answers
// Python's `multiprocessing.connection.wait`.
#pragma once

#include <multiprocessing/connection/pipe.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/runtime/channel.hpp>
#include <multiprocessing/timeout.hpp>

#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <optional>
#include <ranges>
#include <span>
#include <vector>

namespace multiprocessing {

namespace connection {

/// Has a descriptor that becomes readable.
template <class T>
concept HasFileno = requires(const T& object) {
    { object.fileno() } -> std::convertible_to<int>;
};

/// Something to wait for: a Connection, a process's sentinel, any descriptor or object with one.
/// Equal to what it was made from.
class Waitable {
public:
    Waitable(int descriptor) noexcept : descriptor_(descriptor) {}
    Waitable(const Connection& connection)
        : connection_(connection), is_connection_(true),
          descriptor_(connection.closed() ? -1 : connection.fileno()) {}
    template <HasFileno T>
        requires(!std::same_as<T, Connection> && !std::same_as<T, Waitable>)
    Waitable(const T& object) : descriptor_(object.fileno()) {}

    [[nodiscard]] int fileno() const noexcept { return descriptor_; }
    /// The Connection, if it is one.
    [[nodiscard]] std::optional<Connection> connection() const {
        return is_connection_ ? std::optional(connection_) : std::nullopt;
    }
    /// Whether waiting for it is waiting for something to receive, not just for its end.
    [[nodiscard]] bool receives() const noexcept {
        return !is_connection_ || connection_.readable();
    }
    friend bool operator==(const Waitable& a, const Waitable& b) noexcept {
        return a.is_connection_ == b.is_connection_ &&
               (a.is_connection_ ? a.connection_ == b.connection_ : a.descriptor_ == b.descriptor_);
    }

private:
    Connection connection_;  // a closed one if it is none; no std::optional, of which g++ 12 warns
    bool is_connection_ = false;
    int descriptor_;
};

/// Waits until at least one of the objects is ready; returns those that are, in their order, or
/// none at the timeout. With no objects it waits for the timeout alone. *Python*:
/// `connection.wait`.
std::vector<Waitable> wait(std::span<const Waitable> objects, Timeout timeout);
inline std::vector<Waitable> wait(std::initializer_list<Waitable> objects, Timeout timeout = {}) {
    return wait(std::span<const Waitable>(objects.begin(), objects.size()), timeout);
}
/// The same for a range of any of these.
template <std::ranges::input_range R>
    requires std::convertible_to<std::ranges::range_reference_t<R>, Waitable>
std::vector<Waitable> wait(R&& objects, Timeout timeout = {}) {
    std::vector<Waitable> list;
    for (auto&& object : objects) list.emplace_back(object);
    return wait(std::span<const Waitable>(list), timeout);
}

}  // namespace connection

// ---------------------------------------------------------------------------------------------------

inline std::vector<connection::Waitable> connection::wait(std::span<const Waitable> objects,
                                                          Timeout timeout) {
    std::vector<os::PollEntry> entries;
    entries.reserve(objects.size());
    for (const Waitable& object : objects) {
        if (object.fileno() < 0) runtime::throw_bad_descriptor("handle is closed");
        // An end that only sends is "readable" for ever; of that one its errors count.
        entries.push_back({object.fileno(), object.receives() ? os::poll_in : short{0}, 0});
    }
    os::poll(entries, timeout);
    std::vector<Waitable> ready;
    for (std::size_t i = 0; i < entries.size(); ++i) {
        if ((entries[i].revents & os::poll_invalid) != 0) {
            runtime::throw_bad_descriptor("wait: a descriptor is closed");
        }
        if (entries[i].revents != 0) ready.push_back(objects[i]);
    }
    return ready;
}

}  // namespace multiprocessing
