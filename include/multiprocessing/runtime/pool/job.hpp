// SPDX-License-Identifier: BSL-1.0
//
// A job: one call of the pool's interface, cut into tasks whose outcomes come back in any order. What
// is made of them is said by the classes derived from it.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/runtime/pool/outcomes.hpp>
#include <multiprocessing/runtime/pool/progress.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <utility>

namespace multiprocessing::runtime::pool {

/// The caller's side of a call. Its functions are called by any thread, several at a time.
class Job : public OutcomeReader {
public:
    Job() = default;
    Job(const Job&) = delete;
    Job& operator=(const Job&) = delete;

    /// All outcomes of one task have been given; so many bytes of shared memory are free again.
    virtual void task_done(std::uint64_t bytes) = 0;
    /// There will be no more outcomes: the job was cancelled, or the pool has ended. False if it was
    /// over already.
    virtual bool fail(std::exception_ptr exception) = 0;
    /// An item was taken back that nobody had begun.
    virtual void taken_back(std::uint64_t item) {
        error(item, std::make_exception_ptr(CancelledError("the task was cancelled")));
    }
    /// Gives all of its input that is still to be read, if that has an end.
    virtual void read_to_the_end() {}

    /// Before anything is given: has the bar show how far it is.
    void show(std::unique_ptr<Progress> bar) { bar_ = std::move(bar); }

protected:
    void show_more(std::uint64_t items) {
        if (bar_) bar_->add(items);
    }
    void show_total(std::uint64_t items) noexcept {
        if (bar_) bar_->expect(items);
    }
    void show_end() {
        if (bar_) bar_->finish();
    }

private:
    std::unique_ptr<Progress> bar_;
};

/// Bytes of one value of an array of outcomes.
template <class R>
[[nodiscard]] R element_of(const std::byte* array, std::size_t place) {
    return pickle::load_payload<R>({array + place * sizeof(R), sizeof(R)});
}

/// A job whose calls give an R, whether they come as bytes or as they are.
template <class R>
class JobOf : public Job {
public:
    virtual void put(std::uint64_t item, R value) = 0;

    void array(std::uint64_t item, const std::byte* array, std::uint32_t from,
               std::uint32_t count) override {
        if constexpr (pickle::Bitwise<R>) {
            for (std::uint32_t i = 0; i < count; ++i) put(item + i, element_of<R>(array, from + i));
        }
    }
    void value(std::uint64_t item, std::span<const std::byte> bytes, pickle::Cargo& cargo) override {
        if constexpr (pickle::Picklable<R>) {
            if (bytes.size() > most_bytes()) most_bytes_.store(bytes.size(), std::memory_order_relaxed);
            try {
                put(item, pickle::load_payload<R>(bytes, &cargo));
            } catch (...) {
                error(item, std::current_exception());
            }
        }
    }

protected:
    /// Of one result, as far as they have come.
    [[nodiscard]] std::uint64_t most_bytes() const noexcept {
        return most_bytes_.load(std::memory_order_relaxed);
    }

private:
    std::atomic<std::uint64_t> most_bytes_{0};
};

}  // namespace multiprocessing::runtime::pool
