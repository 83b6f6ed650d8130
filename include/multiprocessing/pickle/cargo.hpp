// SPDX-License-Identifier: BSL-1.0
//
// What travels beside the bytes of a message: objects in shared memory, kept alive while they are
// on their way, and file descriptors where the carrier can take them. The bytes say "the third
// ticket", never an address, so corrupt bytes cannot name what was not sent.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/shm/ref.hpp>

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace multiprocessing::pickle {

/// One message's companions. The destructor gives up what was not delivered: on the sending side
/// everything unless `ship()` was called, on the receiving side what was not taken.
class Cargo {
public:
    /// A message to be written. `carrier` is named when something cannot travel in it; `stays_here` says
    /// that no other machine can see it.
    explicit Cargo(bool carries_descriptors = false, const char* carrier = "this carrier",
                   bool stays_here = true) noexcept
        : carrier_(carrier), carries_descriptors_(carries_descriptors), stays_here_(stays_here) {}
    /// A message to be read, with the tickets that came with it, wherever they lie, and its
    /// descriptors.
    explicit Cargo(std::span<shm::Ticket> arrived, std::vector<os::Fd> descriptors = {}) noexcept
        : arrived_(arrived), descriptors_(std::move(descriptors)) {}
    /// A message that may be read again by others: its handles are copied, not taken.
    [[nodiscard]] static Cargo copied(std::span<const shm::Ticket> tickets) {
        return Cargo(Copied{}, tickets);
    }
    Cargo(const Cargo&) = delete;
    Cargo& operator=(const Cargo&) = delete;
    ~Cargo() {
        if (shipped_) return;
        for (auto& ticket : tickets_) shm::abandon(ticket);
        for (auto& ticket : arrived_) shm::abandon(ticket);
    }

    // The sending side.

    /// Takes a shared object along; the result is what the bytes call it by.
    std::size_t add(const shm::Ref& object) {
        tickets_.reserve(tickets_.size() + 1);  // before depart: its count must not be lost
        tickets_.push_back(object.depart());
        return tickets_.size() - 1;
    }
    /// Takes a copy of a descriptor along. Throws PicklingError where the carrier has no way to.
    std::size_t add_descriptor(int fd) {
        if (!carries_descriptors_)
            throw PicklingError("a Connection or DupFd cannot travel in " + std::string(carrier_) +
                                ", which carries bytes only: send it through a Connection, or pass "
                                "it to a Process as an argument");
        descriptors_.push_back(os::duplicate(fd));
        return descriptors_.size() - 1;
    }
    [[nodiscard]] std::span<const shm::Ticket> tickets() const noexcept { return tickets_; }
    [[nodiscard]] std::vector<int> descriptors() const {
        std::vector<int> numbers;
        for (const os::Fd& descriptor : descriptors_) numbers.push_back(descriptor.get());
        return numbers;
    }
    [[nodiscard]] bool carries_descriptors() const noexcept { return carries_descriptors_; }
    [[nodiscard]] bool stays_here() const noexcept { return stays_here_; }
    [[nodiscard]] bool empty() const noexcept { return tickets_.empty() && descriptors_.empty(); }
    /// The tickets are the receiver's now; the descriptors are still to be delivered.
    void ship_tickets() noexcept { tickets_.clear(); }
    /// The message is delivered: the tickets are the receiver's now.
    void ship() noexcept {
        shipped_ = true;
        descriptors_.clear();
    }

    /// All that was taken along, for a reader in this process.
    struct Delivered {
        std::vector<shm::Ticket> tickets;
        std::vector<os::Fd> descriptors;
    };
    [[nodiscard]] Delivered deliver() noexcept {
        shipped_ = true;
        return {std::move(tickets_), std::move(descriptors_)};
    }

    // The receiving side.

    /// Whether there are handles among what has come.
    [[nodiscard]] bool has_arrived() const noexcept {
        return !arrived_.empty() || !copied_.empty() || !descriptors_.empty();
    }
    /// The object that the bytes call `index`. Throws UnpicklingError, or shm::StaleTicket.
    [[nodiscard]] shm::Ref take(std::size_t index) {
        if (index < copied_.size()) return shm::Ref::copy(copied_[index]);
        if (index >= arrived_.size())
            throw UnpicklingError("the message names a shared object that did not come with it");
        return shm::Ref::arrive(arrived_[index]);
    }
    [[nodiscard]] os::Fd take_descriptor(std::size_t index) {
        if (index >= descriptors_.size() || !descriptors_[index])
            throw UnpicklingError("the message names a descriptor that did not come with it");
        return std::move(descriptors_[index]);
    }

private:
    struct Copied {};
    Cargo(Copied, std::span<const shm::Ticket> tickets) noexcept : copied_(tickets) {}

    std::vector<shm::Ticket> tickets_;
    std::span<const shm::Ticket> copied_;
    std::span<shm::Ticket> arrived_;
    std::vector<os::Fd> descriptors_;
    const char* carrier_ = "this carrier";
    bool carries_descriptors_ = false;
    bool stays_here_ = true;
    bool shipped_ = false;
};

}  // namespace multiprocessing::pickle
