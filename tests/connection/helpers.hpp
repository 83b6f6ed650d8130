// SPDX-License-Identifier: BSL-1.0
//
// What tests of listeners and clients share: other ends that speak bytes, threads with a result, and
// paths for sockets.
#pragma once

#include <multiprocessing/connection.hpp>
#include <multiprocessing/os/listen.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/socket.hpp>
#include <multiprocessing/runtime/challenge.hpp>
#include <multiprocessing/runtime/channel.hpp>

#include "shm/helpers.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <sys/socket.h>
#include <unistd.h>

namespace support {

namespace mp = multiprocessing;

inline constexpr double in_time = 30;  // seconds; nothing takes that long

inline const mp::bytes a_key("a key");
inline const mp::bytes another_key("another key");

/// What one who has the key answers to a question.
inline std::string proof(const mp::bytes& key, std::string_view question) {
    return mp::runtime::answer_to(key, std::as_bytes(std::span(question)));
}

/// Runs f() in a thread of its own. Of what it throws `get` tells.
template <class F>
auto in_thread(F f) {
    return std::async(std::launch::async, std::move(f));
}

/// A socket that is connected to a listener and says what it is told to say.
class RawClient {
public:
    explicit RawClient(const mp::connection::Address& address) : socket_(connect(address)) {}
    explicit RawClient(mp::os::Fd socket) : socket_(std::move(socket)) {}

    [[nodiscard]] int fileno() const { return socket_.get(); }
    void write(std::string_view text) const {
        ::iovec part{const_cast<char*>(text.data()), text.size()};
        mp::os::send_all(socket_.get(), {&part, 1});
    }
    [[nodiscard]] static std::string frame(std::string_view message) {
        const mp::runtime::FrameHeader header(message.size());
        return std::string(reinterpret_cast<const char*>(header.bytes.data()), header.size) +
               std::string(message);
    }
    void send(std::string_view message) const { write(frame(message)); }
    /// So many bytes; fewer only at the end.
    [[nodiscard]] std::string read(std::size_t size) const {
        std::string text(size, '\0');
        std::size_t have = 0;
        while (have < size) {
            if (!mp::os::poll(socket_.get(), mp::os::poll_in, soon())) {
                throw std::runtime_error("nothing has come");
            }
            const auto got = mp::os::receive_some(
                socket_.get(), std::as_writable_bytes(std::span(text)).subspan(have));
            if (got == 0) break;
            have += got;
        }
        text.resize(have);
        return text;
    }
    /// The next message; nothing at the end.
    [[nodiscard]] std::string receive() const {
        const std::string header = read(4);
        if (header.size() < 4) return "";
        return read(
            mp::runtime::big_endian<std::uint32_t>(std::as_bytes(std::span(header)).first<4>()));
    }
    /// Whether the other end has been closed, and nothing is left to be read.
    [[nodiscard]] bool at_end() const { return read(1).empty(); }
    void close() { socket_.reset(); }

private:
    static mp::os::Fd connect(const mp::connection::Address& address) {
        if (address.family() == AF_UNIX) {
            const mp::os::UnixAddress where(address.path());
            return mp::os::connect_to(where.address(), soon(), address.str());
        }
        return mp::os::connect_to(mp::os::resolve(address.host(),
                                                  static_cast<std::uint16_t>(address.port()),
                                                  address.family().value(), false)
                                      .at(0),
                                  soon(), address.str());
    }

    mp::os::Fd socket_;
};

/// A folder for sockets, which goes with what is in it.
class SocketFolder {
public:
    SocketFolder() {
        std::string name = (std::filesystem::temp_directory_path() / "mp-socket-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no folder for sockets");
        path_ = name;
    }
    SocketFolder(const SocketFolder&) = delete;
    SocketFolder& operator=(const SocketFolder&) = delete;
    ~SocketFolder() {
        std::error_code none;
        std::filesystem::remove_all(path_, none);
    }
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }
    [[nodiscard]] std::string operator/(std::string_view name) const { return (path_ / name).string(); }

private:
    std::filesystem::path path_;
};

/// For as long as it lives the process is in another folder.
class WorkingFolder {
public:
    explicit WorkingFolder(const std::filesystem::path& path)
        : before_(std::filesystem::current_path()) {
        std::filesystem::current_path(path);
    }
    WorkingFolder(const WorkingFolder&) = delete;
    WorkingFolder& operator=(const WorkingFolder&) = delete;
    ~WorkingFolder() { std::filesystem::current_path(before_); }

private:
    std::filesystem::path before_;
};

/// Whether a local host of the family can be listened at.
inline bool has_family(const char* family) {
    try {
        static_cast<void>(mp::connection::Listener({.family = family}));
        return true;
    } catch (const std::system_error&) {
        return false;
    }
}

}  // namespace support
