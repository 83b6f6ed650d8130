// SPDX-License-Identifier: BSL-1.0
//
// epoll(7): descriptors that come and go while threads wait for one of them to be readable, or for the
// peer of one of them to leave.
#pragma once

#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/fd.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include <sys/epoll.h>

namespace multiprocessing::os {

/// A descriptor that is readable while one of its members is ready. A forked child shares it with its
/// parent, and what one takes out is out for the other: each is to have its own.
class Epoll {
public:
    Epoll() {
        Fd fd(::epoll_create1(EPOLL_CLOEXEC));
        if (!fd) throw_errno("epoll_create1");
        fd_ = clear_of_standard_streams(std::move(fd));
    }

    [[nodiscard]] int get() const noexcept { return fd_.get(); }
    /// Adds one that is to be known by `tag`, and is ready when it is readable. Throws std::system_error.
    void add(int fd, void* tag) const { add(fd, tag, EPOLLIN); }
    /// One that is ready when nobody is at its other end any more.
    void add_for_departure(int fd, void* tag) const { add(fd, tag, EPOLLRDHUP); }
    /// To be called before it is closed: a copy in another process would keep it in.
    void remove(int fd) const noexcept { ::epoll_ctl(fd_.get(), EPOLL_CTL_DEL, fd, nullptr); }
    /// Puts the tags of some that are ready (or at their end, or in error) right now into `tags`, and
    /// returns that part of it. All get their turn.
    template <std::size_t N>
    [[nodiscard]] std::span<void*> ready(std::array<void*, N>& tags) const {
        std::array<::epoll_event, N> events;
        const int count = retry_on_signal(
            [&] { return ::epoll_wait(fd_.get(), events.data(), static_cast<int>(N), 0); });
        if (count < 0) throw_errno("epoll_wait");
        const auto size = static_cast<std::size_t>(count);
        for (std::size_t i = 0; i < size; ++i) tags[i] = events[i].data.ptr;
        return std::span(tags).first(size);
    }

private:
    void add(int fd, void* tag, std::uint32_t events) const {
        ::epoll_event event{};
        event.events = events;
        event.data.ptr = tag;
        if (::epoll_ctl(fd_.get(), EPOLL_CTL_ADD, fd, &event) != 0) throw_errno("epoll_ctl");
    }

    Fd fd_;
};

}  // namespace multiprocessing::os
