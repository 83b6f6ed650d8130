// SPDX-License-Identifier: BSL-1.0
//
// Cutting an input range into tasks for ranks, as it is read.
#pragma once

#include <multiprocessing/mpi/engine.hpp>
#include <multiprocessing/mpi/work.hpp>
#include <multiprocessing/pickle/code.hpp>
#include <multiprocessing/runtime/pool/input.hpp>
#include <multiprocessing/runtime/pool/outcomes.hpp>
#include <multiprocessing/runtime/pool/work.hpp>
#include <multiprocessing/runtime/pool/written_items.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

namespace multiprocessing::mpi {

/// Gives one task after the other, as a ProcessFeeder does.
template <Calling calling, class F, class Item>
class RankFeeder {
    using TheCall = runtime::pool::TravellingCall<calling, F, Item>;

public:
    using Engine = RankEngine;
    using R = typename TheCall::R;

    RankFeeder(Engine& engine, F f, const TaskSettings& settings)
        : engine_(engine), f_(std::move(f)), settings_(settings) {}

    template <class Iterator, class Sentinel, class Tell>
    bool give(const std::shared_ptr<Job>& job, Iterator& next, const Sentinel& end, std::uint32_t most,
              std::uint32_t grain, Tell about_to_give) {
        if (!input_.go_on(next, end)) return false;
        if (!function_) function_ = written_function();
        runtime::pool::WrittenItems<TheCall, Item> items(most, grain, spare_buffers.take());
        input_.read(
            next, end,
            [&](auto&& item) {
                if constexpr (std::same_as<std::remove_cvref_t<decltype(item)>, Item>) {
                    return items.add(item, nullptr);
                } else {
                    return items.add(static_cast<Item>(std::forward<decltype(item)>(item)), nullptr);
                }
            },
            [&] { return items.keep_whole(); });
        const std::uint32_t count = items.count();
        const std::uint64_t bytes = items.bytes().size();
        about_to_give(bytes);
        last_ = engine_.submit(job, given_,
                               {function_, count, std::min(grain, count), std::move(items.bytes()),
                                std::move(items.first_bytes())},
                               settings_);
        given_ += count;
        bytes_ += bytes;
        return true;
    }

    [[nodiscard]] std::uint64_t last_task() const noexcept { return last_; }
    [[nodiscard]] std::uint64_t given() const noexcept { return given_; }
    [[nodiscard]] std::uint64_t bytes_an_item() const noexcept {
        return given_ != 0 ? bytes_ / given_ : 0;
    }

private:
    [[nodiscard]] FunctionPointer written_function() {
        pickle::Buffer callable;
        TheCall::write_callable(callable, nullptr, f_);
        Function head;
        head.maker = pickle::code_address(reinterpret_cast<const void*>(&RankWork<calling, F, Item>::make));
        head.entry =
            pickle::code_address(reinterpret_cast<const void*>(&runtime::pool::Work<calling, F, Item>::run));
        head.item = TheCall::plain ? sizeof(Item) : 0;
        head.element = runtime::pool::array_element<R>;
        return engine_.function(head, std::move(callable));
    }

    Engine& engine_;
    F f_;
    TaskSettings settings_;
    FunctionPointer function_;
    std::uint64_t given_ = 0;
    std::uint64_t bytes_ = 0;
    std::uint64_t last_ = 0;
    runtime::pool::Input input_;
};

}  // namespace multiprocessing::mpi
