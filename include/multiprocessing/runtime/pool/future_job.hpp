// SPDX-License-Identifier: BSL-1.0
//
// The job behind a Future: one call of an executor's.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/runtime/future_state.hpp>
#include <multiprocessing/runtime/pool/engine.hpp>
#include <multiprocessing/runtime/pool/job.hpp>

#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

namespace multiprocessing::runtime::pool {

template <class R>
class FutureJob final : public JobOf<typename FutureCell<R>::Stored> {
    using Stored = typename FutureCell<R>::Stored;

public:
    explicit FutureJob(std::shared_ptr<FutureCell<R>> cell) noexcept : cell_(std::move(cell)) {}

    void put(std::uint64_t, Stored value) override {
        unless_done([&] { cell_->set_value(std::move(value)); });
    }
    void error(std::uint64_t, std::exception_ptr exception) override {
        unless_done([&] { cell_->set_exception(std::move(exception)); });
    }
    void task_done(std::uint64_t) override {}
    void taken_back(std::uint64_t) override { cell_->mark_cancelled(); }
    bool fail(std::exception_ptr exception) override {
        try {
            std::rethrow_exception(exception);
        } catch (const CancelledError&) {
            return !cell_->done() && cell_->mark_cancelled();
        } catch (...) {
            return unless_done([&] { cell_->set_exception(std::move(exception)); });
        }
    }

private:
    // Somebody may have finished it by hand, as its interface allows.
    template <class Finish>
    static bool unless_done(Finish finish) {
        try {
            finish();
            return true;
        } catch (const InvalidStateError&) {
            return false;
        }
    }

    const std::shared_ptr<FutureCell<R>> cell_;
};

/// A task of an engine's, as its future sees it.
template <class TheEngine, class Task>
class TaskSource final : public FutureSource {
public:
    TaskSource(std::weak_ptr<TheEngine> engine, Task task)
        : engine_(std::move(engine)), task_(std::move(task)) {}
    bool revoke() override {
        const auto engine = engine_.lock();
        if (!engine) return false;
        const std::lock_guard lock(mutex_);
        revoked_ = revoked_ || engine->take_back(task_);
        return revoked_;
    }
    bool begun() override {
        const auto engine = engine_.lock();
        return engine && engine->has_begun(task_);
    }
    void check_may_wait(os::Deadline deadline) const override {
        const auto engine = engine_.lock();
        if (engine) deadline.is_never() ? engine->check_may_wait() : engine->check_own();
    }

private:
    const std::weak_ptr<TheEngine> engine_;
    const Task task_;
    std::mutex mutex_;  // of several who cancel it all are told that it is
    bool revoked_ = false;
};

}  // namespace multiprocessing::runtime::pool
