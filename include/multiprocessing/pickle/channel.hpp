// SPDX-License-Identifier: BSL-1.0
//
// Objects through a ring: what is nothing but its bytes is copied in and out under the ring's lock,
// what must be pickled is pickled outside it. Under the queues.
#pragma once

#include <multiprocessing/os/fault.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/shm/ring.hpp>
#include <multiprocessing/shm/run.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <optional>
#include <ranges>
#include <span>
#include <utility>
#include <vector>

namespace multiprocessing::pickle {

/// An object small enough, and simple enough, to be copied straight into a record.
template <class T>
concept RecordSized = Bitwise<T> && sizeof(T) <= shm::Ring::inline_most;

inline shm::Outcome put_run(shm::Ring& ring, shm::Run run, std::size_t size, os::Deadline deadline) {
    MULTIPROCESSING_FAULT_POINT("send: run written, not put");
    const auto outcome =
        ring.put(deadline, [&](shm::Ring::Putter& end) { end.put_run(run.block(), size); });
    if (outcome == shm::Outcome::done) run.release();
    MULTIPROCESSING_FAULT_POINT("send: run let go");
    return outcome;
}

/// Puts one object. Its handles are shipped with it. When it throws the ring is as it was.
template <Picklable T>
shm::Outcome send(shm::Ring& ring, const T& value, os::Deadline deadline) {
    using shm::Ring;
    if constexpr (RecordSized<T>) {
        return ring.put(deadline, [&](Ring::Putter& end) {
            std::memcpy(end.reserve(sizeof(T)), std::addressof(value), sizeof(T));
        });
    } else {
        if constexpr (has_exact_size<T>) {
            // Long and of known length: written once, where it stays.
            const std::size_t size = payload_size(value);
            if (size > Ring::inline_most) {
                ring.await_used_memory(size, deadline);
                shm::Run run(size);
                Buffer buffer(std::span<std::byte>(run.data(), size));
                save_payload(value, buffer);
                return put_run(ring, std::move(run), size, deadline);
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
        if (size > Ring::inline_most) ring.await_used_memory(size, deadline);
        // From the moment the run bears the tickets it is the run that gives them up.
        shm::Run run(size, cargo.tickets());
        cargo.ship();
        scratch->copy_to(run.data());
        return put_run(ring, std::move(run), size, deadline);
    }
}

/// Reads an object's bytes, which may be those of a run: that ends here.
template <Picklable T>
[[nodiscard]] T load_run(shm::Run run, std::span<const std::byte> bytes) {
    Cargo cargo(run ? run.tickets() : std::span<shm::Ticket>());
    MULTIPROCESSING_FAULT_POINT("receive: taken, not read");
    return load_payload<T>(bytes, &cargo);
}

/// Takes one object into `value`. One that cannot be read is gone, and UnpicklingError thrown.
template <Picklable T>
shm::Outcome receive(shm::Ring& ring, std::optional<T>& value, os::Deadline deadline) {
    using shm::Ring;
    if constexpr (RecordSized<T>) {
        alignas(T) std::byte bytes[sizeof(T)];
        const auto outcome =
            ring.take(deadline, [&](Ring::Getter& end, const Ring::Getter::Record& record) {
                std::memcpy(bytes, record.bytes.data(), sizeof(T));
                end.take(record);
            });
        MULTIPROCESSING_FAULT_POINT("receive: end let go");
        if (outcome == shm::Outcome::done) value.emplace(load_payload<T>(bytes));
        return outcome;
    } else {
        Scratch scratch;
        shm::Run run;
        std::span<const std::byte> bytes;
        const auto outcome =
            ring.take(deadline, [&](Ring::Getter& end, const Ring::Getter::Record& record) {
                if (record.run == nullptr) {
                    scratch->append(record.bytes.data(), record.bytes.size());
                    bytes = scratch->span();
                } else {
                    bytes = record.bytes;
                }
                end.take(record);
                if (record.run != nullptr) run = shm::Run(*record.run);
            });
        if (outcome == shm::Outcome::done) value.emplace(load_run<T>(std::move(run), bytes));
        return outcome;
    }
}

/// Puts the objects of a range, one after the other. What is short is pickled in batches outside the
/// ring's lock; nothing of the user's runs under it. When it throws, what came before the object that
/// could not be put has been put.
template <Picklable T, std::ranges::input_range Range>
shm::Outcome send_many(shm::Ring& ring, Range&& values) {
    using shm::Ring;
    constexpr std::size_t batch_bytes = std::size_t{32} << 10;
    constexpr std::size_t batch_records = 1024;
    Scratch scratch;
    std::vector<std::uint32_t> sizes;
    auto outcome = shm::Outcome::done;
    const auto flush = [&] {
        const std::byte* next = scratch->data();
        const auto forget = [&] {
            sizes.clear();
            scratch->clear();
        };
        try {
            for (std::size_t i = 0; i < sizes.size() && outcome == shm::Outcome::done;) {
                outcome = ring.put_many(os::Deadline::never(), [&](Ring::Putter& end) {
                    std::byte* const to = end.reserve(sizes[i]);
                    if (sizes[i] != 0) std::memcpy(to, next, sizes[i]);
                    next += sizes[i];
                    return ++i != sizes.size();
                });
                MULTIPROCESSING_FAULT_POINT("send_many: a batch put");
            }
        } catch (...) {
            forget();  // some of it has been put
            throw;
        }
        forget();
    };
    try {
        for (const T& value : values) {
            if constexpr (has_exact_size<T> && !Bitwise<T>) {
                if (payload_size(value) > Ring::inline_most) {
                    flush();
                    if (outcome == shm::Outcome::done) {
                        outcome = send(ring, value, os::Deadline::never());
                    }
                    if (outcome != shm::Outcome::done) return outcome;
                    continue;
                }
            }
            const std::size_t before = scratch->size();
            try {
                Cargo cargo(false, "a queue");
                save_payload(value, *scratch, &cargo);
                const std::size_t size = scratch->size() - before;
                if (size <= Ring::inline_most && cargo.tickets().empty()) {
                    sizes.push_back(static_cast<std::uint32_t>(size));
                } else {
                    ring.await_used_memory(size, os::Deadline::never());
                    shm::Run run(size, cargo.tickets());
                    cargo.ship();
                    if (size != 0) std::memcpy(run.data(), scratch->data() + before, size);
                    scratch->truncate(before);
                    flush();
                    if (outcome != shm::Outcome::done) return outcome;
                    outcome = put_run(ring, std::move(run), size, os::Deadline::never());
                }
            } catch (...) {
                scratch->truncate(before);
                throw;
            }
            if (scratch->size() >= batch_bytes || sizes.size() >= batch_records) flush();
            if (outcome != shm::Outcome::done) return outcome;
        }
    } catch (...) {
        flush();
        throw;
    }
    flush();
    return outcome;
}

/// Takes objects that have to be read, as many as are there but no more than some memory for those that
/// are short: they are taken under the ring's lock and read outside of it. Whether that left some.
template <Picklable T>
std::pair<shm::Outcome, bool> receive_batch(shm::Ring& ring, std::vector<T>& values,
                                            std::size_t most, os::Deadline deadline,
                                            std::vector<std::exception_ptr>& failures) {
    using shm::Ring;
    constexpr std::size_t batch_bytes = std::size_t{256} << 10;
    struct Taken {
        shm::Run run;
        std::size_t begin;  // in the run or in the scratch
        std::size_t size;
    };
    Scratch scratch;
    std::vector<Taken> all;
    bool left = false;
    const auto outcome = ring.take(deadline, [&](Ring::Getter& end, Ring::Getter::Record record) {
        const auto count = std::min<std::uint64_t>(most, end.available());
        all.reserve(count);
        values.reserve(values.size() + count);
        scratch->reserve(batch_bytes);
        do {
            left = scratch->size() + record.bytes.size() > batch_bytes && record.run == nullptr;
            if (left) break;
            all.push_back({shm::Run(), scratch->size(), record.bytes.size()});
            if (record.run == nullptr) {
                scratch->append(record.bytes.data(), record.bytes.size());
                end.take(record);
            } else {
                end.take(record);
                all.back().run = shm::Run(*record.run);
            }
            MULTIPROCESSING_FAULT_POINT("receive_many: one taken, not committed");
        } while (all.size() < count && end.peek(record));
    });
    MULTIPROCESSING_FAULT_POINT("receive_many: all taken, none read");
    for (Taken& each : all) {
        const std::byte* bytes = each.run ? each.run.data() : scratch->data() + each.begin;
        try {
            values.push_back(load_run<T>(std::move(each.run), {bytes, each.size}));
        } catch (...) {
            failures.push_back(std::current_exception());
        }
    }
    return {outcome, left};
}

/// Waits for one object and takes what else is there, at most `most`. Those that cannot be read are
/// gone; why is added to `failures`.
template <Picklable T>
shm::Outcome receive_many(shm::Ring& ring, std::vector<T>& values, std::size_t most,
                          os::Deadline deadline, std::vector<std::exception_ptr>& failures) {
    using shm::Ring;
    if constexpr (RecordSized<T>) {
        return ring.take(deadline, [&](Ring::Getter& end, Ring::Getter::Record record) {
            const auto count = std::min<std::uint64_t>(most, end.available());
            values.reserve(count);
            do {
                values.push_back(load_payload<T>(record.bytes));
                end.take(record);
            } while (values.size() < count && end.peek(record));
        });
    } else {
        auto [outcome, left] = receive_batch(ring, values, most, deadline, failures);
        while (left && values.size() + failures.size() < most) {
            left = receive_batch(ring, values, most - values.size() - failures.size(),
                                 os::Deadline::passed(), failures)
                       .second;
        }
        return outcome;
    }
}

}  // namespace multiprocessing::pickle
