// SPDX-License-Identifier: BSL-1.0
//
// Objects through a ring: what is nothing but its bytes is copied in and out under the ring's lock,
// what must be pickled is pickled outside it. Under the queues.
#pragma once

#include <multiprocessing/os/fault.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/shm/ring.hpp>
#include <multiprocessing/shm/run.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace multiprocessing::pickle {

/// An object small enough, and simple enough, to be copied straight into a record.
template <class T>
concept RecordSized = Bitwise<T> && sizeof(T) <= shm::Ring::inline_most;

/// Puts one object. Its handles are shipped with it. When it throws the ring is as it was.
template <Picklable T>
shm::Outcome send(shm::Ring& ring, const T& value, os::Deadline deadline) {
    using shm::Ring;
    if constexpr (RecordSized<T>) {
        return ring.put(deadline, [&](Ring::Putter& end) {
            std::memcpy(end.reserve(sizeof(T)), std::addressof(value), sizeof(T));
        });
    } else {
        const auto put_run = [&](shm::Run run, std::size_t size) {
            MULTIPROCESSING_FAULT_POINT("send: run written, not put");
            const auto outcome = ring.put(
                deadline, [&](Ring::Putter& end) { end.put_run(run.block(), size); });
            if (outcome == shm::Outcome::done) run.release();
            MULTIPROCESSING_FAULT_POINT("send: run let go");
            return outcome;
        };
        if constexpr (has_exact_size<T>) {
            // Long and of known length: written once, where it stays.
            const std::size_t size = *exact_size(value) - sizeof(std::uint64_t);
            if (size > Ring::inline_most) {
                shm::Run run(size);
                Buffer buffer(std::span<std::byte>(run.data(), size));
                save_payload(value, buffer);
                return put_run(std::move(run), size);
            }
        }
        Scratch scratch;
        Cargo cargo(false, "a queue");
        save_payload(value, *scratch, &cargo);
        const auto size = scratch->size();
        if (size <= Ring::inline_most && cargo.tickets().empty()) {
            return ring.put(deadline, [&](Ring::Putter& end) {
                scratch->copy_to(end.reserve(static_cast<std::uint32_t>(size)));
            });
        }
        // From the moment the run bears the tickets it is the run that gives them up.
        shm::Run run(size, cargo.tickets());
        cargo.ship();
        scratch->copy_to(run.data());
        return put_run(std::move(run), size);
    }
}

/// Reads the object of a run, which ends here.
template <Picklable T>
[[nodiscard]] T load_run(shm::Run run, std::span<const std::byte> bytes) {
    Cargo cargo(run.tickets());
    MULTIPROCESSING_FAULT_POINT("receive: run taken, not read");
    return load_payload<T>(bytes, &cargo);
}

/// Takes one object into `value`. One that cannot be read is gone, and UnpicklingError thrown.
template <Picklable T>
shm::Outcome receive(shm::Ring& ring, std::optional<T>& value, os::Deadline deadline) {
    using shm::Ring;
    Scratch scratch;
    Ring::Getter::Record taken;
    shm::Outcome outcome;
    if constexpr (RecordSized<T>) {
        alignas(T) std::byte bytes[sizeof(T)];
        outcome = ring.take(deadline, [&](Ring::Getter& end, const Ring::Getter::Record& record) {
            std::memcpy(bytes, record.bytes.data(), sizeof(T));
            end.take(record);
        });
        MULTIPROCESSING_FAULT_POINT("receive: end let go");
        if (outcome == shm::Outcome::done) value.emplace(load_payload<T>(bytes));
    } else {
        outcome = ring.take(deadline, [&](Ring::Getter& end, const Ring::Getter::Record& record) {
            if (record.run == nullptr) {
                scratch->append(record.bytes.data(), record.bytes.size());
            }
            taken = record;
            end.take(record);
        });
        if (outcome != shm::Outcome::done) return outcome;
        if (taken.run != nullptr) {
            value.emplace(load_run<T>(shm::Run(*taken.run), taken.bytes));
        } else {
            MULTIPROCESSING_FAULT_POINT("receive: pickled bytes taken, not read");
            value.emplace(load_payload<T>(scratch->span()));
        }
    }
    return outcome;
}

/// Waits for one object and takes what else is there, at most `most`. One that cannot be read stays
/// for the next call if it is not the first, and is gone if it is.
template <Picklable T>
shm::Outcome receive_many(shm::Ring& ring, std::vector<T>& values, std::size_t most,
                          os::Deadline deadline) {
    using shm::Ring;
    std::exception_ptr unreadable;
    // Read under the lock, for what was taken could not be put back.
    const auto outcome = ring.take(deadline, [&](Ring::Getter& end, Ring::Getter::Record record) {
        do {
            try {
                Cargo cargo(record.run != nullptr ? shm::Arena::tickets(*record.run)
                                                  : std::span<shm::Ticket>());
                values.push_back(load_payload<T>(record.bytes, &cargo));
            } catch (const UnpicklingError&) {
                if (!values.empty()) return;
                unreadable = std::current_exception();
                end.take(record);
                if (record.run != nullptr) shm::Run gone(*record.run);
                return;
            }
            MULTIPROCESSING_FAULT_POINT("receive_many: one read, not taken");
            end.take(record);
            if (record.run != nullptr) shm::Run done(*record.run);
            MULTIPROCESSING_FAULT_POINT("receive_many: one taken");
        } while (values.size() < most && end.peek(record));
    });
    if (unreadable) std::rethrow_exception(unreadable);
    return outcome;
}

}  // namespace multiprocessing::pickle
