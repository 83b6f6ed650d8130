// SPDX-License-Identifier: BSL-1.0
//
// `mp::connection::Address`: where a Listener listens. Answers the addresses of Python's
// `multiprocessing.connection`, which are strings and pairs there.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/socket_address.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace multiprocessing::connection {

/// A kind of address: "AF_UNIX", "AF_INET" or "AF_INET6", as Python names them.
class Family {
public:
    /// *Throws* ValueError for another name.
    template <std::convertible_to<std::string_view> Text>
    Family(const Text& name) : value_(parse(name)) {}
    /// One of the constants of <sys/socket.h>.
    Family(int value) : value_(value) { static_cast<void>(this->name()); }

    [[nodiscard]] int value() const noexcept { return value_; }
    [[nodiscard]] std::string name() const;

    friend bool operator==(Family, Family) noexcept = default;
    friend std::ostream& operator<<(std::ostream& out, Family family) {
        return out << family.name();
    }

private:
    struct Named {
        int value;
        const char* name;
    };
    static constexpr std::array all{Named{AF_UNIX, "AF_UNIX"}, Named{AF_INET, "AF_INET"},
                                    Named{AF_INET6, "AF_INET6"}};
    [[nodiscard]] static int parse(std::string_view name);

    int value_;
};

/// A path, a name of Linux's abstract namespace (which begins with a NUL), or a host and a port.
///
///     Address("/run/user/1000/app"), Address("\0app"), Address("127.0.0.1", 5000), Address("::1", 0)
///
/// It can be sent to other processes. *Python*: a string or a pair.
class Address {
public:
    /// No address: that of a peer that has none.
    Address() = default;
    /// A path or an abstract name. *Throws* ValueError for what is neither: `\\server\pipe` is
    /// Windows's.
    Address(std::string path) : name_(std::move(path)) { check_path(); }
    /// A literal, with the NUL that it begins with.
    template <std::size_t N>
    Address(const char (&literal)[N]) : Address(from_literal({literal, N})) {}
    template <std::convertible_to<std::string_view> Text>
        requires(!std::is_array_v<Text> && !std::same_as<Text, std::string>)
    Address(const Text& path) : Address(std::string(std::string_view(path))) {}
    /// A name or the number of a host, "" for every interface of this one, and a port; a Listener at
    /// port 0 chooses one that is free. *Throws* ValueError for no port.
    Address(std::string host, int port);

    [[nodiscard]] Family family() const {
        return !port_ ? AF_UNIX : name_.find(':') == std::string::npos ? AF_INET : AF_INET6;
    }
    /// *Throws* ValueError for an address of another family.
    [[nodiscard]] const std::string& path() const;
    [[nodiscard]] const std::string& host() const;
    [[nodiscard]] int port() const;

    /// For people: the path, "@name" for an abstract one, or "host:port".
    [[nodiscard]] std::string str() const;

    friend bool operator==(const Address&, const Address&) = default;
    friend std::ostream& operator<<(std::ostream& out, const Address& address) {
        return out << address.str();
    }
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        int port = port_.value_or(no_port);
        archive& name_& port;
        if (port < no_port || port > most_ports) throw UnpicklingError("the bytes hold no Address");
        port_ = port == no_port ? std::nullopt : std::optional(port);
    }

private:
    static constexpr int no_port = -1;
    static constexpr int most_ports = 0xffff;

    /// Of a literal, or of an array that is longer than the text in it.
    [[nodiscard]] static std::string from_literal(std::string_view array);
    void check_path() const;

    std::string name_;
    std::optional<int> port_;
};

// ---------------------------------------------------------------------------------------------------

inline int Family::parse(std::string_view name) {
    for (const Named& each : all) {
        if (name == each.name) return each.value;
    }
    throw ValueError("Family " + std::string(name) +
                     " is not recognized: there are AF_UNIX, AF_INET and AF_INET6");
}

inline std::string Family::name() const {
    for (const Named& each : all) {
        if (value_ == each.value) return each.name;
    }
    throw ValueError("Family " + std::to_string(value_) +
                     " is not recognized: there are AF_UNIX, AF_INET and AF_INET6");
}

inline Address::Address(std::string host, int port) : name_(std::move(host)), port_(port) {
    if (port < 0 || port > most_ports) {
        throw ValueError("Address: a port is a number from 0 to 65535, which " +
                         std::to_string(port) + " is not");
    }
    if (name_.find('\0') != std::string::npos) {
        throw ValueError("Address: the name of a host has no NUL in it");
    }
}

inline std::string Address::from_literal(std::string_view array) {
    if (array.front() != '\0') return std::string(array.substr(0, array.find('\0')));
    const std::string_view name = array.substr(1);
    const std::string_view text = name.substr(0, name.find('\0'));
    return text.empty() ? "" : '\0' + std::string(text);
}

inline void Address::check_path() const {
    if (name_.starts_with("\\\\")) {
        throw ValueError("Family AF_PIPE is not recognized: '" + name_ +
                         "' is the address of a pipe on Windows");
    }
}

inline const std::string& Address::path() const {
    if (port_) throw ValueError("Address::path: " + str() + " has a host and a port, and no path");
    return name_;
}

inline const std::string& Address::host() const {
    if (!port_) throw ValueError("Address::host: '" + str() + "' is a path, and no host");
    return name_;
}

inline int Address::port() const {
    if (!port_) throw ValueError("Address::port: '" + str() + "' is a path, and has no port");
    return *port_;
}

inline std::string Address::str() const {
    if (port_) {
        const bool bracketed = name_.find(':') != std::string::npos;
        return (bracketed ? "[" + name_ + "]" : name_) + ":" + std::to_string(*port_);
    }
    return name_.starts_with('\0') ? "@" + name_.substr(1) : name_;
}

}  // namespace multiprocessing::connection
