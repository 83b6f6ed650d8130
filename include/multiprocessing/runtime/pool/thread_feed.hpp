// SPDX-License-Identifier: BSL-1.0
//
// Cutting an input range into tasks for threads, as it is read.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/callable.hpp>
#include <multiprocessing/pickle/type_name.hpp>
#include <multiprocessing/runtime/pool/calling.hpp>
#include <multiprocessing/runtime/pool/input.hpp>
#include <multiprocessing/runtime/pool/thread_engine.hpp>

#include <concepts>
#include <cstdint>
#include <exception>
#include <iterator>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace multiprocessing::runtime::pool {

/// Gives one task after the other. All threads call the one function object.
template <Calling calling, class F, class Item>
class ThreadFeeder {
    using TheCall = Call<calling, F, Item>;

public:
    using Engine = ThreadEngine;
    using R = typename TheCall::R;

    ThreadFeeder(Engine& engine, F f, const TaskSettings& settings)
        : engine_(engine), f_(std::make_shared<F>(std::move(f))), settings_(settings) {
        if (pickle::is_null_callable(*f_)) {
            throw ValueError("ThreadPool: the function of type " + pickle::type_name<F>() + " is null");
        }
    }

    /// As ProcessFeeder's.
    template <class Iterator, class Sentinel, class Tell>
    bool give(const std::shared_ptr<JobOf<R>>& job, Iterator& next, const Sentinel& end,
              std::uint32_t most, std::uint32_t grain, Tell about_to_give) {
        if (!input_.go_on(next, end)) return false;
        std::vector<std::optional<Item>> items;
        input_.read(
            next, end,
            [&](auto&& item) {
                items.emplace_back(std::in_place, std::forward<decltype(item)>(item));
                return items.size() == most;
            },
            [&] {
                items.resize(items.size() - items.size() % grain);
                return !items.empty();
            });
        const auto count = static_cast<std::uint32_t>(items.size());
        about_to_give(count * sizeof(Item));
        const auto task = std::make_shared<Task>(job, f_, std::move(items), given_, grain, settings_);
        last_ = task;
        engine_.submit(task);
        given_ += count;
        return true;
    }

    /// The last task, while it is not done. (Not kept: it has the job, which may have this.)
    [[nodiscard]] std::shared_ptr<LocalTask> last_task() const noexcept { return last_.lock(); }
    [[nodiscard]] std::uint64_t given() const noexcept { return given_; }
    [[nodiscard]] std::uint64_t bytes_an_item() const noexcept { return sizeof(Item); }

private:
    class Task final : public LocalTask {
    public:
        Task(std::shared_ptr<JobOf<R>> job, std::shared_ptr<F> f,
             std::vector<std::optional<Item>> items, std::uint64_t base, std::uint32_t grain,
             const TaskSettings& settings)
            : LocalTask(job, base, static_cast<std::uint32_t>(items.size()), grain, settings),
              job_(*job), f_(std::move(f)), items_(std::move(items)) {}

        void run(std::uint32_t item, Delivery& delivery) override {
            std::optional<R> result;
            std::exception_ptr error;
            try {
                if constexpr (std::is_void_v<typename TheCall::Returned>) {
                    TheCall::Step::run(*f_, *items_[item]);
                    result.emplace();
                } else {
                    result.emplace(TheCall::Step::run(*f_, *items_[item]));
                }
            } catch (...) {
                error = std::current_exception();
            }
            items_[item].reset();  // an argument is not kept for longer than its call
            if (!delivery.is_wanted()) return;
            if (result) {
                try {
                    return job_.put(number_of(item), std::move(*result));
                } catch (...) {  // by the result's own code, as it is moved
                    error = std::current_exception();
                }
            }
            job_.error(number_of(item), std::move(error));
        }

    private:
        JobOf<R>& job_;
        const std::shared_ptr<F> f_;
        std::vector<std::optional<Item>> items_;
    };

    Engine& engine_;
    std::shared_ptr<F> f_;
    TaskSettings settings_;
    std::uint64_t given_ = 0;
    std::weak_ptr<LocalTask> last_;
    Input input_;
};

}  // namespace multiprocessing::runtime::pool
