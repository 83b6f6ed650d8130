// SPDX-License-Identifier: BSL-1.0
//
// A long message through a pipe is whole or was never sent, whichever instruction its sender or its
// receiver is killed at.
#include <multiprocessing/connection.hpp>

#include "shm/helpers.hpp"
#include "shm/single_step.hpp"
#include "support/catch.hpp"

#include <optional>
#include <string>
#include <utility>

namespace mp = multiprocessing;
using namespace support;

namespace {

const std::string long_text(100'000, 'x');

std::optional<std::string> next(const mp::Connection& connection) {
    if (!connection.poll(0)) return std::nullopt;
    return connection.recv<std::string>();
}

}  // namespace

TEST_CASE("killed anywhere in sending a long message, it is sent or was never begun",
          "[connection][killed]") {
    const NoLeak leak;
    std::optional<std::pair<mp::Connection, mp::Connection>> pipe;
    kill_anywhere([&] { pipe = mp::Pipe(); }, [&] { pipe->first.send(long_text); },
                  [&] {
                      // This comes after it, and shows that what was not quite sent holds nobody up.
                      pipe->first.send(std::string("next"));
                      auto got = next(pipe->second);
                      if (got == long_text) got = next(pipe->second);
                      CHECK(got == "next");
                      CHECK_FALSE(pipe->second.poll(0));
                      pipe.reset();
                      CHECK(leak.leaked() == 0);
                  });
}

TEST_CASE("killed anywhere in receiving a long message, the next one comes", "[connection][killed]") {
    const NoLeak leak;
    std::optional<std::pair<mp::Connection, mp::Connection>> pipe;
    kill_anywhere(
        [&] {
            pipe = mp::Pipe();
            pipe->first.send(long_text);
            pipe->first.send(std::string("next"));
        },
        [&] { static_cast<void>(pipe->second.recv<std::string>()); },
        [&] {
            auto got = next(pipe->second);
            if (got == long_text) got = next(pipe->second);
            CHECK(got == "next");
            pipe.reset();
            CHECK(leak.leaked() == 0);
        });
}
