// SPDX-License-Identifier: BSL-1.0
//
// Where a socket is: a path, a name of Linux's abstract namespace, or a host and a port.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/fd.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

namespace multiprocessing::os {

/// An address of any family, as the kernel takes it.
class SocketAddress {
public:
    SocketAddress() noexcept { std::memset(&storage_, 0, sizeof storage_); }
    SocketAddress(const ::sockaddr* address, ::socklen_t size) noexcept : SocketAddress() {
        size_ = size;
        std::memcpy(&storage_, address, size);
    }

    [[nodiscard]] const ::sockaddr* get() const noexcept {
        return reinterpret_cast<const ::sockaddr*>(&storage_);
    }
    [[nodiscard]] ::socklen_t size() const noexcept { return size_; }
    /// Has a call like getsockname(2) fill it.
    template <class Call>
    [[nodiscard]] bool fill(Call call) {
        size_ = sizeof storage_;
        return call(reinterpret_cast<::sockaddr*>(&storage_), &size_) >= 0;
    }

    /// AF_UNSPEC where the kernel had nothing to say.
    [[nodiscard]] int family() const noexcept {
        return size_ < sizeof(::sa_family_t) ? AF_UNSPEC : storage_.ss_family;
    }
    /// Of AF_UNIX: the path, an abstract name with its leading NUL, or nothing for a socket that was
    /// never bound.
    [[nodiscard]] std::string path() const;
    /// Of a path.
    [[nodiscard]] bool is_file() const {
        return family() == AF_UNIX && !path().empty() && path().front() != '\0';
    }
    /// Of AF_INET and AF_INET6: the address in figures.
    [[nodiscard]] std::string host() const;
    [[nodiscard]] std::uint16_t port() const noexcept;

private:
    template <class T>
    [[nodiscard]] T as() const noexcept {
        T address;
        std::memcpy(&address, &storage_, sizeof address);
        return address;
    }

    ::sockaddr_storage storage_;
    ::socklen_t size_ = 0;
};

/// A path as an address. One that is too long for that goes by way of its folder, which is open for
/// as long as this lives. Throws ValueError where that is of no help either, and for a NUL inside of
/// a path.
class UnixAddress {
public:
    explicit UnixAddress(std::string_view path);

    [[nodiscard]] const SocketAddress& address() const noexcept { return address_; }

private:
    void assign(std::string_view path) noexcept;

    Fd folder_;
    SocketAddress address_;
};

/// The addresses of a host; "" is every interface of this one. `family` is AF_INET, AF_INET6 or
/// AF_UNSPEC for both. Throws std::system_error when the name cannot be resolved.
/// *Blocks* while a name server is asked.
[[nodiscard]] std::vector<SocketAddress> resolve(const std::string& host, std::uint16_t port,
                                                 int family, bool to_listen);

// ---------------------------------------------------------------------------------------------------

inline std::string SocketAddress::path() const {
    constexpr std::size_t start = offsetof(::sockaddr_un, sun_path);
    if (family() != AF_UNIX || size_ <= start) return "";
    const auto address = as<::sockaddr_un>();
    const std::string_view all(address.sun_path, size_ - start);
    // A path ends with a NUL, which may be missing; of an abstract name all bytes count.
    return std::string(all.front() == '\0' ? all : all.substr(0, all.find('\0')));
}

inline std::string SocketAddress::host() const {
    if (family() != AF_INET && family() != AF_INET6) return "";
    char text[NI_MAXHOST] = "";
    ::getnameinfo(get(), size_, text, sizeof text, nullptr, 0, NI_NUMERICHOST);
    return text;
}

inline std::uint16_t SocketAddress::port() const noexcept {
    if (family() == AF_INET) return ntohs(as<::sockaddr_in>().sin_port);
    if (family() == AF_INET6) return ntohs(as<::sockaddr_in6>().sin6_port);
    return 0;
}

inline UnixAddress::UnixAddress(std::string_view path) {
    constexpr std::size_t room = sizeof(::sockaddr_un::sun_path);
    const auto too_long = [&] {
        return ValueError("AF_UNIX address: a name of " + std::to_string(path.size()) +
                          " bytes is too long, whatever folder it is in: '" + std::string(path) + "'");
    };
    if (!path.empty() && path.front() == '\0') {  // an abstract name has no NUL at its end
        if (path.size() > room) throw too_long();
        assign(path);
        return;
    }
    if (path.find('\0') != std::string_view::npos) {
        throw ValueError("AF_UNIX address: a path has a NUL inside, and an abstract name begins "
                         "with one");
    }
    if (path.size() < room) {
        assign(path);
        return;
    }
    const std::size_t slash = path.rfind('/');
    const std::string folder(slash == std::string_view::npos ? "."
                             : slash == 0                    ? "/"
                                                             : path.substr(0, slash));
    const std::string_view name =
        slash == std::string_view::npos ? path : path.substr(slash + 1);
    folder_ = open_directory(folder.c_str());
    const std::string shorter =
        "/proc/self/fd/" + std::to_string(folder_.get()) + "/" + std::string(name);
    if (shorter.size() >= room) throw too_long();
    assign(shorter);
}

inline void UnixAddress::assign(std::string_view path) noexcept {
    ::sockaddr_un address;
    std::memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    const bool is_abstract = !path.empty() && path.front() == '\0';
    const std::size_t size =
        offsetof(::sockaddr_un, sun_path) + path.size() + (is_abstract ? 0 : 1);
    address_ =
        SocketAddress(reinterpret_cast<const ::sockaddr*>(&address), static_cast<::socklen_t>(size));
}

inline std::vector<SocketAddress> resolve(const std::string& host, std::uint16_t port, int family,
                                          bool to_listen) {
    ::addrinfo hints;
    std::memset(&hints, 0, sizeof hints);
    hints.ai_family = family;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV | (to_listen ? AI_PASSIVE : 0);
    ::addrinfo* found = nullptr;
    const int error = ::getaddrinfo(host.empty() ? nullptr : host.c_str(),
                                    std::to_string(port).c_str(), &hints, &found);
    if (error == EAI_SYSTEM) throw_errno("getaddrinfo", host);
    if (error == EAI_MEMORY) throw std::bad_alloc();
    if (error != 0) {
        // As Python's gaierror, which is an OSError: the closest code, and the resolver's words.
        throw std::system_error(error == EAI_AGAIN ? EAGAIN : EADDRNOTAVAIL, std::system_category(),
                                "getaddrinfo (" + host + "): " + ::gai_strerror(error));
    }
    const std::unique_ptr<::addrinfo, void (*)(::addrinfo*)> owner(found, &::freeaddrinfo);
    std::vector<SocketAddress> all;
    for (const ::addrinfo* each = found; each != nullptr; each = each->ai_next) {
        all.emplace_back(each->ai_addr, each->ai_addrlen);
    }
    return all;
}

}  // namespace multiprocessing::os
