// SPDX-License-Identifier: BSL-1.0
//
// Managers, and connections by Listener and Client beside bare sockets. What each subject is, and the
// same in CPython, is in managers.py.
#include <multiprocessing/connection.hpp>
#include <multiprocessing/managers.hpp>
#include <multiprocessing/process.hpp>

#include "measure.hpp"

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

namespace mp = multiprocessing;
using mp::connection::Address;
using mp::connection::Client;
using mp::connection::Listener;

namespace {

// The dict of a manager ---------------------------------------------------------------------------

constexpr long batch = 1000;

template <class Call>
void calls(const std::string& name, long first, const Call& call) {
    const auto manager = mp::Manager();
    const auto dict = manager.dict<int, int>();
    for (int i = 0; i < batch; ++i) dict[i] = i;
    benchmark::race(name, benchmark::rate("k/s", 1e-3), first,
                    {{"ours", [&](long count) {
                          return benchmark::seconds([&] { call(dict, count); });
                      }}});
}

using Dict = mp::managers::DictProxy<int, int>;

void get(const std::string& name) {
    calls(name, 2000, [](const Dict& dict, long count) {
        for (long i = 0; i < count; ++i) static_cast<void>(dict.at(7));
    });
}

void set(const std::string& name) {
    calls(name, 2000, [](const Dict& dict, long count) {
        for (long i = 0; i < count; ++i) dict[7] = static_cast<int>(i);
    });
}

void add(const std::string& name) {
    calls(name, 2000, [](const Dict& dict, long count) {
        for (long i = 0; i < count; ++i) dict[7] += 1;
    });
}

void get_many(const std::string& name) {
    std::vector<int> keys;
    for (int i = 0; i < batch; ++i) keys.push_back(i);
    calls(name, 20 * batch, [&](const Dict& dict, long count) {
        for (long i = 0; i < count; i += batch) static_cast<void>(dict.get_many(keys));
    });
}

void update(const std::string& name) {
    std::vector<std::pair<int, int>> items;
    for (int i = 0; i < batch; ++i) items.emplace_back(i, i);
    calls(name, 20 * batch, [&](const Dict& dict, long count) {
        for (long i = 0; i < count; i += batch) dict.update(items);
    });
}

// Listener and Client -----------------------------------------------------------------------------

/// A bare socket that listens at an address of its own, and one that is connected to it.
std::pair<int, int> bare_connection(int listening) {
    ::sockaddr_storage address{};
    ::socklen_t size = sizeof address;
    ::getsockname(listening, reinterpret_cast<::sockaddr*>(&address), &size);
    const int client = ::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (::connect(client, reinterpret_cast<::sockaddr*>(&address), size) != 0) std::exit(1);
    const int server = ::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC);
    if (server < 0) std::exit(1);
    return {server, client};
}

int bare_listener(int family) {
    const int listening = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ::sockaddr_storage address{};
    address.ss_family = static_cast<::sa_family_t>(family);  // any port, or a name that Linux chooses
    const ::socklen_t size = family == AF_UNIX ? sizeof(::sa_family_t) : 16;
    if (::bind(listening, reinterpret_cast<::sockaddr*>(&address), size) != 0 ||
        ::listen(listening, 16) != 0) {
        throw std::system_error(errno, std::system_category(), "a bare listener");
    }
    return listening;
}

void handshake(const std::string& name) {
    const Listener listener({.backlog = 16, .authkey = "secret"});
    const int listening = bare_listener(AF_UNIX);
    benchmark::race(name, benchmark::microseconds(), 200,
                    {{"ours",
                      [&](long count) {
                          std::thread accepting([&] {
                              for (long i = 0; i < count; ++i) listener.accept();
                          });
                          const double taken = benchmark::seconds([&] {
                              for (long i = 0; i < count; ++i) {
                                  Client(listener.address(), {.authkey = "secret"});
                              }
                          });
                          accepting.join();
                          return taken;
                      }},
                     {"limit", [&](long count) {
                          return benchmark::seconds([&] {
                              for (long i = 0; i < count; ++i) {
                                  const auto [server, client] = bare_connection(listening);
                                  ::close(server);
                                  ::close(client);
                              }
                          });
                      }}});
    ::close(listening);
}

void write_all(int fd, const char* from, std::size_t size) {
    while (size > 0) {
        const auto done = ::write(fd, from, size);
        if (done <= 0) std::exit(1);
        from += done;
        size -= static_cast<std::size_t>(done);
    }
}

void read_all(int fd, char* into, std::size_t size) {
    while (size > 0) {
        const auto done = ::read(fd, into, size);
        if (done <= 0) std::exit(1);
        into += done;
        size -= static_cast<std::size_t>(done);
    }
}

/// A child sends, this process receives, into the same memory again and again.
void throughput(const std::string& name, int family, std::size_t size) {
    const std::vector<char> from(size, 'x');
    std::vector<char> into(size, 'y');
    const Listener listener =
        family == AF_UNIX ? Listener() : Listener(Address("127.0.0.1", 0));
    const int listening = bare_listener(family);
    benchmark::race(
        name, benchmark::rate("GB/s", static_cast<double>(size) * 1e-9),
        static_cast<long>((std::size_t{256} << 20) / size),
        {{"ours",
          [&](long count) {
              const auto there = Client(listener.address());
              const mp::Connection here = listener.accept();
              return benchmark::seconds([&] {
                  const benchmark::Child sender([&] {
                      for (long i = 0; i < count; ++i) there.send_bytes(from);
                  });
                  for (long i = 0; i < count; ++i) here.recv_bytes_into(into);
              });
          }},
         {"limit", [&](long count) {
              const auto [server, client] = bare_connection(listening);
              const int sending = client;
              const double taken = benchmark::seconds([&] {
                  const benchmark::Child sender([&] {
                      for (long i = 0; i < count; ++i) write_all(sending, from.data(), size);
                  });
                  for (long i = 0; i < count; ++i) read_all(server, into.data(), size);
              });
              ::close(server);
              ::close(client);
              return taken;
          }}});
    ::close(listening);
}

constexpr std::size_t kibibyte = 1024;

template <int family, std::size_t kibibytes>
void through(const std::string& name) {
    throughput(name, family, kibibytes * kibibyte);
}

}  // namespace

int main(int argc, char* argv[]) {
    return benchmark::run({{"manager, dict get", get},
                           {"manager, dict set", set},
                           {"manager, dict +=", add},
                           {"manager, dict get in batches", get_many},
                           {"manager, dict set in batches", update},
                           {"handshake", handshake},
                           {"AF_UNIX, 64 KiB", through<AF_UNIX, 64>},
                           {"AF_UNIX, 1 MiB", through<AF_UNIX, 1024>},
                           {"AF_UNIX, 64 MiB", through<AF_UNIX, 64 * 1024>},
                           {"AF_INET, 64 KiB", through<AF_INET, 64>},
                           {"AF_INET, 1 MiB", through<AF_INET, 1024>}},
                          argc, argv);
}
