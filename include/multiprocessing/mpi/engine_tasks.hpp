// SPDX-License-Identifier: BSL-1.0
//
// How tasks are given, cut into slices and sent: so much at a time as keeps a rank busy until it can be
// sent more, and no more, so that all are done at the same time. The rest of mpi/engine.hpp, which
// includes this.
#pragma once

#include <multiprocessing/mpi/engine.hpp>

namespace multiprocessing::mpi {

inline FunctionPointer RankEngine::function(const Function& head, pickle::Buffer&& callable) {
    static constinit std::atomic<std::uint64_t> last_id{0};
    const std::lock_guard lock(mutex_);
    for (const FunctionPointer& known : functions_) {
        if (known->head.maker == head.maker && known->callable.size() == callable.size() &&
            (callable.size() == 0 ||
             std::memcmp(known->callable.data(), callable.data(), callable.size()) == 0)) {
            return known;
        }
    }
    auto made = std::make_shared<SentFunction>();
    made->head = head;
    made->head.pool = number_;
    made->head.id = ++last_id;
    made->head.size = callable.size();
    made->callable = std::move(callable);
    functions_.push_back(made);
    return made;
}

/// Of functions that nobody calls any more the latest are kept, for they may be called again. With the
/// mutex.
inline void RankEngine::forget_functions(std::vector<Post>& posts) {
    constexpr std::size_t most = 64;
    constexpr std::size_t most_bytes = std::size_t{64} << 20;
    std::size_t bytes = 0;
    for (const FunctionPointer& each : functions_) bytes += each->callable.size();
    std::vector<std::uint64_t> forgotten;
    for (auto at = functions_.begin();
         at != functions_.end() && (functions_.size() > most || bytes > most_bytes);) {
        if (at->use_count() != 1) {
            ++at;
            continue;
        }
        bytes -= (*at)->callable.size();
        forgotten.push_back((*at)->head.id);
        at = functions_.erase(at);
    }
    if (forgotten.empty()) return;
    for (Seat& seat : seats_) {
        std::vector<std::uint64_t> its;
        for (const std::uint64_t id : forgotten) {
            if (seat.functions.erase(id) != 0) its.push_back(id);
        }
        if (its.empty()) continue;
        posts.push_back({&seat, {}});
        append(posts.back().message, Head{Kind::forget, static_cast<std::uint32_t>(its.size()), number_});
        posts.back().message.append(its.data(), its.size() * sizeof its[0]);
    }
}

inline std::uint64_t RankEngine::submit(const std::shared_ptr<Job>& job, std::uint64_t base,
                                        TaskParts&& parts, const TaskSettings& settings) {
    const std::uint64_t id = next_id_.fetch_add(1);
    const std::uint32_t count = parts.count;
    const std::uint32_t grains = (count + parts.grain - 1) / parts.grain;
    GivenPointer given(
        new Given{id, job, base, std::move(parts), settings, {{0, grains}}, count, count});
    std::exception_ptr refused;
    {
        const std::lock_guard lock(mutex_);
        refused = refusal();
        if (!refused) {
            given_.emplace(id, given);
            queue_.push_back(std::move(given));
            waiting_items_ += count;
            outstanding_.fetch_add(count);
        }
    }
    if (refused) {
        job->fail(refused);
        return id;
    }
    dispatch();
    // Who gives much sees to it that those who are quick get more meanwhile. (An executor's callbacks may
    // be anything, and are run in its own thread.)
    if (fleet_ && !is_executors_ && !fleet_->is_polled(std::chrono::microseconds(50))) look();
    if (is_parked_.load()) wake();
    return id;
}

/// Sends what there is to those who want it. One thread does at a time, outside of the mutex, so that
/// every rank is sent things in the order in which they were decided on.
inline void RankEngine::dispatch() noexcept {
    if (dispatching_.exchange(true)) {
        dispatch_again_.store(true);
        // It may have stopped looking in between.
        if (dispatching_.exchange(true)) return;
    }
    do {
        dispatch_again_.store(false);
        try {
            std::vector<Post> posts;
            while (prepare(posts)) {
                for (Post& each : posts) post(each);
                posts.clear();
            }
        } catch (...) {  // for lack of memory
            break_down(std::current_exception());
        }
        dispatching_.store(false);
    } while (dispatch_again_.load() && !dispatching_.exchange(true));
}

/// What the next rank that wants something is to be sent; false: there is none, or nothing.
inline bool RankEngine::prepare(std::vector<Post>& posts) {
    constexpr std::size_t large = std::size_t{256} << 10;
    const std::lock_guard lock(mutex_);
    while (!queue_.empty() && !hungry_.empty()) {
        Seat& seat = *hungry_.front();
        pickle::Buffer message;
        append(message, Head{Kind::slices, 0, number_});
        std::uint32_t slices = 0;
        bool is_full = false;
        std::span<const std::byte> all_of_rest;
        std::shared_ptr<const void> keeps_rest;
        while (!queue_.empty() && message.size() < large) {
            Given& given = *queue_.front();
            const std::uint32_t grains = grains_for(seat, given);
            is_full = grains == 0;
            if (is_full) break;
            teach(seat, given.parts.function, posts);
            Grains& waiting = given.waiting.front();
            const Grains some{waiting.first, waiting.first + grains};
            waiting.first = some.end;
            if (waiting.first == waiting.end) given.waiting.pop_front();
            const auto rest = add_slice(given, some, message);
            ++slices;
            const std::uint32_t items = given.items_of(some);
            given.waiting_items -= items;
            waiting_items_ -= items;
            seat.items += items;
            seat.bytes += given.bytes_of(items);
            if (given.seats.empty() || given.seats.back() != seat.index) given.seats.push_back(seat.index);
            if (!rest.empty()) keeps_rest = queue_.front();
            if (given.waiting.empty()) {
                given.is_queued = false;
                queue_.pop_front();
            }
            all_of_rest = rest;
            // The rest of a task that is more than its share is for others first.
            if (!rest.empty() || !given.waiting.empty()) break;
        }
        // One that is full is asked again when it has done something, one that is not when the others
        // have been.
        seat.is_hungry = !is_full;
        auto& to = is_full ? full_ : hungry_;
        to.splice(to.end(), hungry_, seat.place);
        if (slices == 0) continue;
        Head head{Kind::slices, slices, number_};
        std::memcpy(message.data(), &head, sizeof head);
        posts.push_back({&seat, std::move(message), {}, all_of_rest, std::move(keeps_rest)});
        forget_functions(posts);
        return true;
    }
    return false;
}

/// How many items are to be at a rank: as many as take it some time, if it is known how long one takes;
/// and one that it need not wait for, unless the wait is nothing beside the task.
inline std::uint64_t RankEngine::horizon_items(const Seat& seat,
                                               const SentFunction& function) const noexcept {
    constexpr double horizon = 2e6;  // nanoseconds
    constexpr double takes_long = 20e6;
    constexpr double most = 1 << 20;
    const double each = std::max(function.nanoseconds, 1.0);
    if (function.samples == 0 || each > takes_long) return seat.capacity;
    return seat.capacity + static_cast<std::uint64_t>(seat.capacity * std::clamp(horizon / each, 1.0, most));
}

/// How many grains of a task a rank is to be sent now; 0: it is full. With the mutex.
inline std::uint32_t RankEngine::grains_for(const Seat& seat, const Given& given) const noexcept {
    constexpr std::uint64_t most_bytes = std::uint64_t{2} << 20;
    constexpr double worth_a_message = 1e5;  // nanoseconds
    if (seat.is_stuck) return 0;
    const SentFunction& function = *given.parts.function;
    const std::uint64_t grain = given.parts.grain;
    const std::uint64_t wanted = std::max(horizon_items(seat, function), seat.capacity * grain);
    if (seat.items != 0 && seat.items > wanted / 2) return 0;
    const std::uint64_t always = (seat.capacity + 1) * grain;
    if (seat.bytes > most_bytes && seat.items >= always) return 0;
    // Towards the end ever fewer, so that nobody has much to do when the others are done.
    const std::uint64_t share = waiting_items_ / (2 * std::uint64_t{size()}) + 1;
    const double least = function.samples == 0 ? 1 : worth_a_message / std::max(function.nanoseconds, 1.0);
    // In two halves, so that there is always one to be at while the other is on its way.
    std::uint64_t items = std::min({wanted - seat.items, (wanted + 1) / 2,
                                    std::max(share, static_cast<std::uint64_t>(least))});
    const std::uint64_t bytes_each = given.bytes_of(1) + 1;
    items = std::min(items, std::max(most_bytes / bytes_each, std::uint64_t{1}));
    const Grains& waiting = given.waiting.front();
    return static_cast<std::uint32_t>(
        std::clamp<std::uint64_t>(items / grain, 1, waiting.end - waiting.first));
}

/// Appends it to a message; what is long it leaves where it is, to be sent as the rest.
inline std::span<const std::byte> RankEngine::add_slice(const Given& given, Grains grains,
                                                        pickle::Buffer& message) {
    constexpr std::size_t is_long = std::size_t{32} << 10;
    const TaskParts& parts = given.parts;
    Slice slice;
    slice.task = given.id;
    slice.function = parts.function->head.id;
    slice.base = given.base;
    slice.first = grains.first * parts.grain;
    slice.count = given.items_of(grains);
    slice.grain = parts.grain;
    slice.retries = given.settings.retries;
    slice.timeout = given.settings.timeout.count();
    slice.grace = given.settings.grace.count();
    const std::uint64_t element = parts.function->head.item;
    std::uint64_t begin = slice.first * element;
    std::uint64_t end = begin + slice.count * element;
    if (element == 0) {
        const auto place = [&](std::uint32_t grain) {
            return grain < parts.first_bytes.size() ? parts.first_bytes[grain] : parts.items.size();
        };
        begin = place(grains.first);
        end = place(grains.end);
        slice.has_places = 1;
    }
    slice.size = end - begin;
    const std::span items(parts.items.data() + begin, static_cast<std::size_t>(slice.size));
    const std::size_t here = items.size() >= is_long ? 0 : items.size();
    message.reserve(message.size() + sizeof slice + here +
                    (grains.end - grains.first) * sizeof(std::uint64_t));
    append(message, slice);
    if (element == 0) {
        for (std::uint32_t i = grains.first; i != grains.end; ++i) {
            append(message, parts.first_bytes[i] - begin);
        }
    }
    message.append(items.data(), here);
    return items.subspan(here);
}

/// Sees to it that a rank has a function. If that is large others, who will want it too, are sent it with
/// this one's help. With the mutex.
inline void RankEngine::teach(Seat& seat, const FunctionPointer& function, std::vector<Post>& posts) {
    constexpr std::size_t large = std::size_t{64} << 10;
    if (!seat.functions.insert(function->head.id).second) return;
    Post post{&seat, {}, {}, function->callable.span(), function};
    if (seat.rank >= 0 && function->callable.size() >= large) {
        std::uint64_t wanted = waiting_items_;
        for (Seat* other : hungry_) {
            if (other == &seat || other->rank < 0) continue;
            if (wanted <= 1 || !other->functions.insert(function->head.id).second) continue;
            --wanted;
            post.others.push_back(other->rank);
        }
    }
    append(post.message, function->head);
    posts.push_back(std::move(post));
}

/// Without the mutex.
inline void RankEngine::post(Post& post) {
    if (post.seat->rank < 0) {
        post.message.append(post.rest.data(), post.rest.size());
        return local_->take(std::move(post.message));
    }
    if (post.others.empty()) {
        return fleet_->send(post.seat->rank, std::move(post.message), post.rest,
                            std::move(post.keeps_rest));
    }
    const auto head = MessageReader(post.message.span()).get<Function>();
    post.others.insert(post.others.begin(), post.seat->rank);
    fleet_->send_function(head, post.rest, post.keeps_rest, post.others);
}

inline RankEngine::GivenPointer RankEngine::find_given(std::uint64_t id) const {
    const std::lock_guard lock(mutex_);
    const auto found = given_.find(id);
    return found != given_.end() ? found->second : nullptr;
}

/// With the mutex.
inline void RankEngine::take_off_queue(Given& given) noexcept {
    if (!std::exchange(given.is_queued, false)) return;
    std::erase_if(queue_, [&](const GivenPointer& each) { return each.get() == &given; });
    waiting_items_ -= given.waiting_items;
    outstanding_.fetch_sub(given.waiting_items);
    given.left -= given.waiting_items;
    given.waiting_items = 0;
    given.waiting.clear();
}

/// With the mutex.
inline void RankEngine::tell_cancelled(const Given& given, std::vector<Post>& posts) {
    const std::set<std::size_t> each_once(given.seats.begin(), given.seats.end());
    for (const std::size_t seat : each_once) {
        posts.push_back({&seats_[seat], {}});
        append(posts.back().message,
               Cancel{Kind::cancel, 1, number_, given.settings.may_be_stopped ? 1u : 0u});
        append(posts.back().message, given.id);
    }
}

inline bool RankEngine::cancel(const std::shared_ptr<Job>& job) {
    check_own();
    std::vector<Post> posts;
    std::vector<GivenPointer> dropped;
    {
        const std::lock_guard lock(mutex_);
        for (auto at = given_.begin(); at != given_.end();) {
            Given& given = *at->second;
            if (given.job != job || given.cancelled) {
                ++at;
                continue;
            }
            given.cancelled = true;
            take_off_queue(given);
            if (given.left != 0) {
                tell_cancelled(given, posts);
                ++at;
                continue;
            }
            dropped.push_back(at->second);
            at = given_.erase(at);
        }
    }
    const bool in_time = job->fail(std::make_exception_ptr(CancelledError("the task was cancelled")));
    for (Post& each : posts) post(each);
    wake();
    return in_time;
}

inline bool RankEngine::take_back(std::uint64_t id) {
    if (is_foreign()) return false;
    GivenPointer given;
    {
        const std::lock_guard lock(mutex_);
        const auto found = given_.find(id);
        if (found == given_.end() || found->second->waiting_items != found->second->left) return false;
        given = found->second;
        take_off_queue(*given);
        given_.erase(found);
    }
    wake();
    return true;
}

inline bool RankEngine::has_begun(std::uint64_t id) const {
    if (is_foreign()) return false;
    const std::lock_guard lock(mutex_);
    const auto found = given_.find(id);
    return found != given_.end() && found->second->waiting_items != found->second->left;
}

inline void RankEngine::cancel_waiting() {
    std::vector<std::pair<GivenPointer, std::deque<Grains>>> taken;
    {
        const std::lock_guard lock(mutex_);
        refuse_more();
        for (auto at = given_.begin(); at != given_.end();) {
            Given& given = *at->second;
            if (given.is_queued) {
                taken.emplace_back(at->second, given.waiting);
                take_off_queue(given);
            }
            at = given.left == 0 ? given_.erase(at) : std::next(at);
        }
    }
    for (const auto& [given, waiting] : taken) {
        for (const Grains& grains : waiting) {
            const std::uint64_t first = given->base + std::uint64_t{grains.first} * given->parts.grain;
            const std::uint64_t items = given->items_of(grains);
            for (std::uint64_t i = 0; i < items; ++i) given->job->taken_back(first + i);
        }
    }
    wake();
}

}  // namespace multiprocessing::mpi
