// SPDX-License-Identifier: BSL-1.0
//
// What travels through connections that a Listener has accepted beside bytes: handles of shared objects,
// and descriptors where both ends are on this machine.
#include <multiprocessing/connection.hpp>

#include <multiprocessing/context.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/reduction.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "connection/helpers.hpp"
#include "runtime/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;
using namespace std::string_literals;
using Catch::Matchers::ContainsSubstring;
using mp::connection::Address;
using mp::connection::Client;
using mp::connection::Listener;
using support::a_key;
using support::in_time;
using support::RawClient;

namespace {

struct HandleParcel {
    mp::Queue<std::string> queue;
    mp::Lock lock;
    mp::Value<int> value{0};
    std::vector<mp::Connection> connections;
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive& queue& lock& value& connections;
    }
};

void use_what_comes(const Address& address) {
    const mp::Connection connection = Client(address, {.authkey = a_key, .timeout = in_time});
    const HandleParcel parcel = connection.recv<HandleParcel>();
    {
        const std::scoped_lock held(parcel.lock);
        parcel.value.store(parcel.value.load() + 1);
    }
    for (const auto& each : parcel.connections) each.send("by its own connection");
    const mp::os::Fd file = connection.recv<mp::reduction::DupFd>().detach();
    if (::write(file.get(), "file", 4) != 4) mp::exit(1);
    parcel.queue.put("through the queue");
    // And back.
    const auto [reader, writer] = mp::Pipe(false);
    connection.send(reader);
    writer.send("from the child");
    const mp::Queue<int> queue;
    queue.put(7);
    connection.send(queue);
    static_cast<void>(connection.recv<int>());
}

/// Two ends of a stream, of which one is a Connection.
std::pair<mp::Connection, RawClient> half_raw() {
    auto [first, second] = mp::os::socket_pair();
    return {mp::Connection(std::move(first)), RawClient(std::move(second))};
}

/// The bytes of a message with a handle in it, which nobody has received.
std::string bytes_of(const mp::Queue<int>& queue) {
    auto [connection, peer] = half_raw();
    connection.send(queue);
    return peer.receive();
}

// How a message with handles ends.
constexpr std::size_t count_size = sizeof(std::uint32_t);
constexpr std::size_t arena_size = sizeof(std::uint64_t);

}  // namespace

TEST_CASE("handles travel between a client and a listener of one tree",
          "[connection][listener][fork][spawn]") {
    const auto ctx = mp::get_context(GENERATE(from_range(mp::get_all_start_methods())));
    const support::NoLeak leak;
    {
        const Listener listener({.authkey = a_key});
        const auto p = ctx.Process(use_what_comes, listener.address());
        p.start();
        const mp::Connection connection = listener.accept(in_time);
        const auto [ours, theirs] = mp::Pipe();
        HandleParcel parcel;
        parcel.value.store(41);
        parcel.connections.push_back(theirs);
        connection.send(parcel);
        theirs.close();
        auto [reading, writing] = mp::os::pipe();
        connection.send(mp::reduction::DupFd(std::move(writing)));
        CHECK(parcel.queue.get(in_time) == "through the queue");
        CHECK(parcel.value.load() == 42);
        CHECK(ours.poll(in_time));
        CHECK(ours.recv<std::string>() == "by its own connection");
        char text[8];
        CHECK(::read(reading.get(), text, sizeof text) == 4);
        const auto received = connection.recv<mp::Connection>();
        CHECK(received.poll(in_time));
        CHECK(received.recv<std::string>() == "from the child");
        CHECK(connection.recv<mp::Queue<int>>().get(in_time) == 7);
        connection.send(0);
        CHECK(support::ended(p) == 0);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("descriptors do not travel over a network, and handles do", "[connection][listener]") {
    const support::NoLeak leak;
    {
        const Listener listener(Address("127.0.0.1", 0), {.backlog = 4});
        const mp::Connection there = Client(listener.address());
        const mp::Connection here = listener.accept(in_time);
        const auto [ours, theirs] = mp::Pipe();
        const mp::Queue<int> queue;
        CHECK_THROWS_AS(here.send(theirs), mp::PicklingError);
        CHECK_THROWS_WITH(there.send(std::vector{ours}), ContainsSubstring("network"));
        CHECK_THROWS_AS(here.send(mp::reduction::DupFd(theirs.fileno())), mp::PicklingError);
        CHECK_THROWS_AS(here.send(std::pair(queue, theirs)), mp::PicklingError);
        CHECK_THROWS_AS(mp::reduction::send_handle(here, theirs.fileno()), mp::ValueError);
        CHECK_FALSE(there.poll());
        here.send(queue);
        CHECK(there.recv<mp::Queue<int>>() == queue);
        here.send(Listener(Address("127.0.0.1", 0)).address());
        CHECK(there.recv<Address>().host() == "127.0.0.1");
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("handles of another program's are refused, and counted nowhere", "[connection][listener]") {
    const support::NoLeak leak;
    {
        const mp::Queue<int> queue;
        const std::string genuine = bytes_of(queue);
        REQUIRE(genuine.size() > arena_size + count_size);
        auto [connection, peer] = half_raw();
        for (std::size_t i = 1; i <= arena_size; ++i) {
            std::string forged = genuine;
            forged[forged.size() - count_size - i] ^= 1;
            peer.send(forged);
            CHECK_THROWS_WITH(connection.recv<mp::Queue<int>>(), ContainsSubstring("another program"));
        }
        // The one that it was made for finds it as it was.
        peer.send(genuine);
        CHECK(connection.recv<mp::Queue<int>>() == queue);
        queue.put(1);
        CHECK(queue.get(in_time) == 1);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a message that lies about its handles is an UnpicklingError", "[connection][listener]") {
    const support::NoLeak leak;
    {
        const mp::Queue<int> queue;
        const std::string genuine = bytes_of(queue);
        auto [connection, peer] = half_raw();
        const std::size_t trailer = sizeof(mp::shm::Ticket) + arena_size + count_size;
        for (const std::uint32_t count : {0u, 1000u, 0x1000'0000u, 0x1000'0001u, 0xffff'ffffu}) {
            std::string forged = genuine;
            std::memcpy(forged.data() + forged.size() - count_size, &count, count_size);
            peer.send(forged);
            CHECK_THROWS_AS(connection.recv<mp::Queue<int>>(), mp::UnpicklingError);
        }
        for (std::size_t size = 0; size < trailer; ++size) {
            peer.send(genuine.substr(genuine.size() - size));
            CHECK_THROWS_AS(connection.recv<mp::Queue<int>>(), mp::UnpicklingError);
        }
        std::string another = genuine;  // there is nothing of that number
        another[genuine.size() - arena_size - count_size - 1] ^= 1;
        peer.send(another);
        CHECK_THROWS_AS(connection.recv<mp::Queue<int>>(), mp::UnpicklingError);
        peer.send(genuine);
        CHECK(connection.recv<mp::Queue<int>>() == queue);
    }
    CHECK(leak.leaked() == 0);
}
