// SPDX-License-Identifier: BSL-1.0
//
// `mp::connection::Listener`: waits for connections from other processes, of this program or not, in
// C++ or in Python. Answers Python's `multiprocessing.connection.Listener`.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/connection/address.hpp>
#include <multiprocessing/connection/pipe.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/listen.hpp>
#include <multiprocessing/os/poll.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/random.hpp>
#include <multiprocessing/runtime/channel.hpp>
#include <multiprocessing/runtime/reception.hpp>
#include <multiprocessing/timeout.hpp>
#include <multiprocessing/util.hpp>

#include <array>
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

namespace multiprocessing::connection {

/// The keyword arguments of `Listener`.
struct ListenerOptions {
    /// Left out: that of the address, and without one AF_UNIX.
    std::optional<Family> family = std::nullopt;
    /// How many connections may wait to be accepted.
    int backlog = 1;
    /// Who connects must know it. Left out: anybody may connect, who can; an empty key is a key.
    std::optional<bytes> authkey = std::nullopt;
};

/// Listens at an address. *Python*: `multiprocessing.connection.Listener`, whose bytes on the wire
/// these are: either end may be Python's.
///
///     mp::connection::Listener listener(Address("127.0.0.1", 0), {.authkey = "secret"});
///     mp::Connection c = listener.accept();      // there: Client(listener.address(), {.authkey = …})
///
/// Without an address it is an abstract AF_UNIX one that nobody can guess and that is closed to other
/// users; the socket's file at a path is closed to them, too, and goes with the listener.
/// With a key strangers hold nobody up: while one says nothing others are heard. Who says nothing for
/// 20 seconds is forgotten, or earlier where there are more than 256 of them.
/// A handle: copies are the same listener, which the destructor of the last one closes.
/// *Process safety*: all calls may come from several threads.
/// *Fork and spawn*: a forked child has it, too, and who accepts first gets a connection; it cannot
/// travel to others.
/// *If the process is killed*, the file at a path is left, as in Python: a name that somebody else
/// chose is not to be removed by guessing.
class Listener {
public:
    Listener() : Listener(ListenerOptions{}) {}
    /// *Throws* std::system_error (EADDRINUSE) where somebody listens, or a file is; ValueError for an
    /// address that is none, and for one of another family than the option says.
    explicit Listener(Address address, ListenerOptions options = {})
        : state_(open(std::move(address), std::move(options))) {}
    // A template, so that braces around a host and a port are an address.
    template <std::same_as<ListenerOptions> Options = ListenerOptions>
    explicit Listener(Options options) : state_(open(std::nullopt, std::move(options))) {}

    // No move of its own: a handle is never empty.
    Listener(const Listener&) = default;
    Listener& operator=(const Listener&) = default;
    ~Listener() = default;

    /// The next connection, whose other end knows the key if there is one.
    ///
    /// *Throws* AuthenticationError when somebody answers wrongly: the listener goes on, call again.
    /// Who leaves before he has answered is not told of. TimeoutError at the timeout, which Python
    /// does not have; std::system_error: EBADF when it is closed, also while this waits, EMFILE when
    /// there is no descriptor for a connection, which goes on waiting.
    Connection accept(Timeout timeout = {}) const;
    /// Stops listening, and removes the file of its address, in the process that made it. Threads that
    /// wait in accept throw; then the address is free again. Harmless when done twice.
    void close() const { state_->close(); }
    [[nodiscard]] bool closed() const { return state_->descriptor() == nullptr; }

    /// With the port that was chosen for port 0.
    [[nodiscard]] const Address& address() const noexcept { return state_->address; }
    /// Where the last connection that was accepted comes from.
    [[nodiscard]] std::optional<Address> last_accepted() const {
        const std::scoped_lock lock(state_->mutex);
        return state_->last_accepted;
    }
    /// A descriptor for `connection::wait` and poll(2), which is readable when accept has something to
    /// do. With a key that need not be a connection yet: where others are waited for, too, use
    /// `accept(0)`, and let its TimeoutError pass.
    [[nodiscard]] int fileno() const;

    /// The same listener?
    friend bool operator==(const Listener&, const Listener&) noexcept = default;

private:
    using Descriptor = std::shared_ptr<const os::Fd>;
    using ReceptionPointer = std::shared_ptr<runtime::Reception>;

    struct State {
        Address address;
        std::optional<bytes> authkey;
        bool same_user_only = false;
        std::optional<util::Finalize> file;  // removes it

        mutable os::ForkAwareMutex mutex;  // guards what follows
        Descriptor listening;
        std::optional<Address> last_accepted;
        ReceptionPointer reception;
        std::uint32_t reception_in = 0;  // by the fork epoch: others are those of parents

        [[nodiscard]] Descriptor descriptor() const {
            const std::scoped_lock lock(mutex);
            return listening;
        }
        /// These throw std::system_error (EBADF) when it is closed.
        [[nodiscard]] Descriptor require() const;
        [[nodiscard]] ReceptionPointer reception_here();
        void forget_foreign_reception();
        void close();
        ~State() { close(); }
    };

    [[nodiscard]] static std::shared_ptr<State> open(std::optional<Address> address,
                                                     ListenerOptions options);
    static void open_path(State& state, const std::string& path, int backlog);
    static void open_port(State& state, int family, int backlog);
    [[nodiscard]] static Address address_of(const os::SocketAddress& socket);

    /// The next one who waits outside, if he may come in.
    [[nodiscard]] std::optional<runtime::Reception::Guest> next_outside(
        const os::Fd& listening, runtime::Reception& reception) const;
    [[nodiscard]] Connection accepted(runtime::Reception::Guest guest) const;

    std::shared_ptr<State> state_;
};

/// Throws ValueError where the two do not go together.
void check_family(const std::optional<Family>& family, const Address& address);

// ---------------------------------------------------------------------------------------------------

inline void check_family(const std::optional<Family>& family, const Address& address) {
    if (!family || *family == address.family()) return;
    // A host's name may be one of either kind.
    if (*family != Family(AF_UNIX) && address.family() == Family(AF_INET)) return;
    throw ValueError("the address " + address.str() + " is of the family " + address.family().name() +
                     ", not of " + family->name());
}

// Opening.

inline std::shared_ptr<Listener::State> Listener::open(std::optional<Address> address,
                                                       ListenerOptions options) {
    if (options.backlog < 0) {
        throw ValueError("Listener: the backlog is negative: " + std::to_string(options.backlog));
    }
    auto state = std::make_shared<State>();
    state->authkey = std::move(options.authkey);
    if (address) {
        check_family(options.family, *address);
        state->address = *std::move(address);
    } else if (const Family family = options.family.value_or(AF_UNIX); family == Family(AF_UNIX)) {
        // Abstract: there is no file to be left, whatever happens.
        std::string name = "listener-" + std::to_string(os::this_pid()) + "-" +
                           std::to_string(os::random_number());
        state->address = Address(std::string(1, '\0') + name);
        state->same_user_only = true;
    } else {
        state->address = Address(family == Family(AF_INET) ? "localhost" : "::1", 0);
    }
    if (state->address.family() == Family(AF_UNIX)) {
        open_path(*state, state->address.path(), options.backlog);
    } else {
        open_port(*state, options.family.value_or(state->address.family()).value(), options.backlog);
    }
    static_cast<void>(state->reception_here());  // so that accepting does not lack descriptors
    return state;
}

inline void Listener::open_path(State& state, const std::string& path, int backlog) {
    if (path.empty()) {
        throw ValueError("Listener: the path is empty; leave it out for an address of its own");
    }
    const os::UnixAddress where(path);
    std::shared_ptr<os::SocketFile> file;
    if (path.front() != '\0') {
        // By the whole path, for the folder that the process is in may be another one by then. At the
        // end of the program, too, for a listener that lives until then.
        file = std::make_shared<os::SocketFile>(std::filesystem::absolute(path).string());
        state.file.emplace(util::FinalizeOptions{.exitpriority = 0}, [file] { file->remove(); });
    }
    state.listening =
        std::make_shared<const os::Fd>(os::listen_at(where.address(), backlog, state.address.str()));
    if (file) file->made();
}

inline void Listener::open_port(State& state, int family, int backlog) {
    const std::string name = state.address.str();
    const auto port = static_cast<std::uint16_t>(state.address.port());
    const auto all = os::resolve(state.address.host(), port, family, true);
    state.listening = std::make_shared<const os::Fd>(os::listen_at(all.front(), backlog, name));
    state.address = address_of(os::local_address(state.listening->get()));
}

inline Address Listener::address_of(const os::SocketAddress& socket) {
    if (socket.family() == AF_INET || socket.family() == AF_INET6) {
        return Address(socket.host(), socket.port());
    }
    return socket.path().empty() ? Address() : Address(socket.path());
}

// What processes and threads share.

inline Listener::Descriptor Listener::State::require() const {
    Descriptor fd = descriptor();
    if (!fd) runtime::throw_bad_descriptor("Listener is closed");
    return fd;
}

inline Listener::ReceptionPointer Listener::State::reception_here() {
    const std::scoped_lock lock(mutex);
    if (!listening) runtime::throw_bad_descriptor("Listener is closed");
    if (reception_in != os::fork_epoch()) {
        auto ours = std::make_shared<runtime::Reception>(authkey.value_or(bytes()));
        forget_foreign_reception();
        reception = std::move(ours);
        reception_in = os::fork_epoch();
    }
    return reception;
}

inline void Listener::State::forget_foreign_reception() {
    if (reception && reception_in != os::fork_epoch()) {
        static_cast<void>(new ReceptionPointer(std::move(reception)));
    }
}

inline void Listener::State::close() {
    Descriptor last_copy;
    ReceptionPointer closing;
    {
        const std::scoped_lock lock(mutex);
        if (!listening) return;
        last_copy.swap(listening);
        forget_foreign_reception();
        closing.swap(reception);
    }
    if (closing) closing->close();
    if (file) (*file)();  // while the socket is there: its file cannot be taken for another's
}

// Accepting.

inline Connection Listener::accept(Timeout timeout) const {
    const os::Deadline deadline(timeout);
    const ReceptionPointer reception = state_->reception_here();
    for (;;) {
        const Descriptor listening = state_->require();
        const os::Deadline admission = reception->next_admission();
        // Who does not wait at all waits elsewhere, until there is nobody outside.
        const bool may_enter = deadline.is_passed() || admission.expired();
        std::array entries{
            os::PollEntry{reception->fileno(), os::poll_in, 0},
            os::PollEntry{may_enter ? listening->get() : -1, os::poll_in, 0}};
        os::Deadline wake = deadline.earlier(reception->next_expiry());
        if (!may_enter) wake = wake.earlier(admission);
        os::poll(entries, wake);
        if (entries[0].revents == 0) {
            reception->expire();
        } else if (auto guest = reception->hear()) {
            return accepted(*std::move(guest));
        }
        if (entries[1].revents != 0) {
            if (auto guest = next_outside(*listening, *reception)) {
                if (!state_->authkey) return accepted(*std::move(guest));
                reception->admit(std::move(guest->socket), guest->from);
            }
        }
        if (deadline.expired()) {
            throw TimeoutError("Listener.accept: nobody has connected to " + state_->address.str() +
                               " in time");
        }
    }
}

inline std::optional<runtime::Reception::Guest> Listener::next_outside(
    const os::Fd& listening, runtime::Reception& reception) const {
    for (;;) {
        try {
            auto next = os::try_accept(listening.get());
            if (!next) return std::nullopt;
            auto& [socket, from] = *next;
            if (state_->same_user_only && !os::is_of_this_user(socket.get())) return std::nullopt;
            if (from.family() != AF_UNIX) os::tune_network_socket(socket.get());
            return runtime::Reception::Guest{std::move(socket), from};
        } catch (const std::system_error& error) {
            const bool no_descriptor = error.code() == std::errc::too_many_files_open ||
                                       error.code() == std::errc::too_many_files_open_in_system;
            if (!no_descriptor || !reception.dismiss_one()) throw;
        }
    }
}

inline Connection Listener::accepted(runtime::Reception::Guest guest) const {
    Address from = address_of(guest.from);
    Connection connection(std::move(guest.socket));
    const std::scoped_lock lock(state_->mutex);
    const os::NoFork whole;
    state_->last_accepted = std::move(from);
    return connection;
}

inline int Listener::fileno() const {
    const Descriptor listening = state_->require();
    return state_->reception_here()->fileno_with(listening->get());
}

}  // namespace multiprocessing::connection
