// SPDX-License-Identifier: BSL-1.0
//
// Pipes beside a bare pair of sockets and a bare copying ring. What each subject is, and the same
// in CPython, is in pipes.py.
#include <multiprocessing/connection.hpp>
#include <multiprocessing/process.hpp>

#include "measure.hpp"
#include "rings.hpp"

#include <array>
#include <cerrno>
#include <cstddef>
#include <string>
#include <system_error>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

namespace mp = multiprocessing;

namespace {

/// Two connected sockets, and whole messages of known length through them.
class SocketPair {
public:
    SocketPair() {
        if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends_.data()) != 0) {
            throw std::system_error(errno, std::system_category(), "socketpair");
        }
    }
    ~SocketPair() {
        for (const int end : ends_) ::close(end);
    }
    SocketPair(const SocketPair&) = delete;
    SocketPair& operator=(const SocketPair&) = delete;

    void write(std::size_t end, const void* from, std::size_t size) const {
        for (auto* next = static_cast<const char*>(from); size > 0;) {
            const auto done = ::write(ends_[end], next, size);
            if (done <= 0) std::exit(1);
            next += done;
            size -= static_cast<std::size_t>(done);
        }
    }
    void read(std::size_t end, void* into, std::size_t size) const {
        for (auto* next = static_cast<char*>(into); size > 0;) {
            const auto done = ::read(ends_[end], next, size);
            if (done <= 0) std::exit(1);
            next += done;
            size -= static_cast<std::size_t>(done);
        }
    }

private:
    std::array<int, 2> ends_{};
};

// Round trips -------------------------------------------------------------------------------------

double our_trips(long count) {
    const auto ends = mp::Pipe();
    const mp::Process echo([&] {
        for (long i = 0; i < count; ++i) ends.second.send(ends.second.recv<int>());
    });
    echo.start();
    const double taken = benchmark::seconds([&] {
        for (long i = 0; i < count; ++i) {
            ends.first.send(7);
            static_cast<void>(ends.first.recv<int>());
        }
    });
    echo.join();
    return taken;
}

double socket_trips(long count) {
    const SocketPair sockets;
    const benchmark::Child echo([&] {
        for (long i = 0; i < count; ++i) {
            int item = 0;
            sockets.read(1, &item, sizeof item);
            sockets.write(1, &item, sizeof item);
        }
    });
    return benchmark::seconds([&] {
        for (long i = 0; i < count; ++i) {
            int item = 7;
            sockets.write(0, &item, sizeof item);
            sockets.read(0, &item, sizeof item);
        }
    });
}

void round_trip(const std::string& name) {
    benchmark::race(name, benchmark::microseconds(), 2000,
                    {{"ours", our_trips}, {"limit", socket_trips}});
}

void round_trip_on_one_core(const std::string& name) {
    const benchmark::OneProcessor here;
    round_trip(name);
}

// Throughput --------------------------------------------------------------------------------------

/// A child sends, this process receives.
template <class Send, class Receive>
double ours(long count, const Send& send, const Receive& receive) {
    const auto ends = mp::Pipe(false);
    const mp::Process sender([&] {
        for (long i = 0; i < count; ++i) send(ends.second);
    });
    return benchmark::seconds([&] {
        sender.start();
        for (long i = 0; i < count; ++i) receive(ends.first);
        sender.join();
    });
}

double through_sockets(std::size_t size, long count) {
    const SocketPair sockets;
    const std::vector<char> from(size, 'x');
    static std::vector<char> into;
    into.resize(size, 'y');
    return benchmark::seconds([&] {
        const benchmark::Child sender([&] {
            for (long i = 0; i < count; ++i) sockets.write(1, from.data(), size);
        });
        for (long i = 0; i < count; ++i) sockets.read(0, into.data(), size);
    });
}

constexpr std::size_t mebibyte = std::size_t{1} << 20;

/// The limit sends blocks of 1 MiB, one after another.
template <std::size_t Mebibytes, class Send, class Receive>
void throughput(const std::string& name, const Send& send, const Receive& receive) {
    constexpr std::size_t size = Mebibytes * mebibyte;
    benchmark::race(name, benchmark::rate("GB/s", static_cast<double>(size) * 1e-9),
                    static_cast<long>(128 / Mebibytes),
                    {{"ours", [&](long count) { return ours(count, send, receive); }},
                     {"limit", benchmark::copy_through_ring<mebibyte, 4, Mebibytes>},
                     {"socketpair", [](long count) { return through_sockets(size, count); }}});
}

template <std::size_t Mebibytes>
void raw_bytes(const std::string& name) {
    const mp::bytes message(std::string(Mebibytes * mebibyte, 'x'));
    throughput<Mebibytes>(
        name, [&](const mp::Connection& end) { end.send_bytes(message); },
        [](const mp::Connection& end) { static_cast<void>(end.recv_bytes()); });
}

template <std::size_t Mebibytes>
void raw_bytes_into_a_buffer(const std::string& name) {
    const mp::bytes message(std::string(Mebibytes * mebibyte, 'x'));
    mp::bytes into = message;
    throughput<Mebibytes>(
        name, [&](const mp::Connection& end) { end.send_bytes(message); },
        [&](const mp::Connection& end) { static_cast<void>(end.recv_bytes_into(into)); });
}

template <std::size_t Mebibytes, class Message>
void objects(const std::string& name, const Message& message) {
    throughput<Mebibytes>(
        name, [&](const mp::Connection& end) { end.send(message); },
        [](const mp::Connection& end) { static_cast<void>(end.recv<Message>()); });
}

void bytes_objects(const std::string& name) {
    objects<64>(name, mp::bytes(std::string(64 * mebibyte, 'x')));
}

void arrays(const std::string& name) {
    objects<64>(name, std::vector<double>(64 * mebibyte / sizeof(double), 1.5));
}

}  // namespace

int main(int argc, char* argv[]) {
    return benchmark::run(
        {{"pipe round trip of an int", round_trip},
         {"pipe round trip of an int, on one core", round_trip_on_one_core},
         {"pipe, send_bytes of 1 MiB", raw_bytes<1>},
         {"pipe, send_bytes of 64 MiB", raw_bytes<64>},
         {"pipe, send_bytes of 64 MiB into a buffer", raw_bytes_into_a_buffer<64>},
         {"pipe, send of 64 MiB bytes", bytes_objects},
         {"pipe, send of 64 MiB arrays", arrays}},
        argc, argv);
}
