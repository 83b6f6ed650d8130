// SPDX-License-Identifier: BSL-1.0
//
// What the victims of the fault points do: every way to put and to get, in an order that is the same
// each time, so that a place can be come by again.
#pragma once

#include <multiprocessing/queues.hpp>

#include "chaos/items.hpp"
#include "chaos/record.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace chaos {

using namespace std::chrono_literals;

/// A run, copied in whole.
using Sheet = Plain<40'000>;

/// What has to be pickled, and has this length.
template <std::size_t length>
struct Letter {
    Label label;
    std::string text;

    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & label.producer & label.sequence & text;
    }
};

template <std::size_t length>
struct Item<Letter<length>> {
    static Letter<length> make(Label label) {
        return {label, std::string(length, static_cast<char>('a' + label.sequence % 26))};
    }
    static std::optional<Label> read(const Letter<length>& item) {
        if (item.text != make(item.label).text) return std::nullopt;
        return item.label;
    }
};

/// When somebody who should go on gives up, by an exception that ends its process.
inline constexpr std::chrono::seconds too_long{15};

/// Puts and gets, and writes it down. The life after `life` is its consumer's.
template <class T>
class Actor {
public:
    Actor(const mp::JoinableQueue<T>& queue, Record& record, std::uint32_t life)
        : queue_(queue), puts_(record, life), gets_(record, life + 1) {}

    void put(int count = 1) {
        for (; count != 0; --count) {
            puts_.begin(1);
            queue_.put(Item<T>::make(puts_.next()), too_long);
            puts_.done(1);
        }
    }
    void put_many(std::uint32_t count) {
        std::vector<T> items;
        Label label = puts_.next();
        for (; items.size() != count; ++label.sequence) items.push_back(Item<T>::make(label));
        puts_.begin(count);
        queue_.put_many(items);
        puts_.done(count);
    }
    /// To a queue that is full.
    void put_in_vain() {
        puts_.begin(1);
        if (queue_.try_put(Item<T>::make(puts_.next()), 20ms)) {
            puts_.done(1);
        } else {
            puts_.refused();
        }
    }
    void get(int count = 1) {
        for (; count != 0; --count) {
            gets_.begin(1);
            gets_.note(queue_.get(too_long));
            gets_.done();
        }
    }
    /// What is there at once, or after `timeout`.
    bool try_get(mp::Timeout timeout = 0) {
        gets_.begin(1);
        const auto item = queue_.try_get(timeout);
        if (item) gets_.note(*item);
        gets_.done();
        return item.has_value();
    }
    void get_many(std::size_t most) {
        gets_.begin(most);
        for (const T& item : queue_.get_many(most, too_long)) gets_.note(item);
        gets_.done();
    }
    [[nodiscard]] const mp::JoinableQueue<T>& queue() const noexcept { return queue_; }
    [[nodiscard]] bool stopped() const noexcept { return puts_.stopped(); }

private:
    const mp::JoinableQueue<T>& queue_;
    PutNotes puts_;
    GetNotes gets_;
};

/// A script for a victim, and the queue that it finds.
template <class T>
struct Workload {
    using Script = void (*)(Actor<T>&);

    const char* name;
    int maxsize;
    int there;  // items that are there before
    Script script;
    enum Kind { plain, needs_others, shuts_down } kind = plain;
    int before = 0;  // items that had been there and have been got: what they needed has grown
};

/// Calls `visit` with every workload.
template <class Visit>
void for_each_workload(Visit visit) {
    using Note = Letter<100>;
    using Volume = Letter<300'000>;
    const auto over = [&]<class T>(std::vector<Workload<T>> workloads) {
        for (const auto& workload : workloads) visit(workload);
    };
    over(std::vector<Workload<Coin>>{
        {"coins, put", 0, 0, [](auto& me) { me.put(3); }},
        {"coins, put at once into several segments", 0, 0, [](auto& me) { me.put_many(600); }},
        {"coins, got", 0, 3, [](auto& me) { me.get(3); }},
        {"coins, got at once from several segments", 0, 600, [](auto& me) { me.get_many(600); }},
        {"coins, put and got where there is room for two", 2, 2,
         [](auto& me) {
             me.get();
             me.put();
             me.get(2);
         }},
        {"coins, put where there is no room", 2, 2,
         [](auto& me) {
             me.put_in_vain();
             me.get();  // tells whoever waits for room
             me.put();
         }},
        {"coins, put at once where there is no room", 4, 2, [](auto& me) { me.put_many(60); },
         Workload<Coin>::needs_others},
        {"coins, waited for", 0, 0,
         [](auto& me) {
             me.try_get(20ms);
             me.put();  // tells whoever waits for an item
         }},
        {"coins, waited for among several queues", 0, 0,
         [](auto& me) {
             static_cast<void>(mp::select({&me.queue()}, 20ms));
             me.put();  // tells whoever waits so
         }},
        {"coins, dealt with", 0, 2,
         [](auto& me) {
             me.get(2);
             me.queue().task_done();
             me.queue().task_done();
         }},
        {"a queue that is shut down", 0, 2, [](auto& me) { me.queue().shutdown(); },
         Workload<Coin>::shuts_down},
        {"a new queue", 0, 0,
         [](auto&) {
             const mp::Queue<Coin> queue;
             queue.put(Coin{});
             queue.get(too_long);
         }},
    });
    over(std::vector<Workload<Tile>>{
        {"tiles, put into several segments", 0, 0, [](auto& me) { me.put(6); }},
        {"tiles, got from several segments", 0, 8, [](auto& me) { me.get(8); }},
        {"tiles, got at once from several segments", 0, 8, [](auto& me) { me.get_many(8); }},
        {"tiles, put into several large segments", 0, 0, [](auto& me) { me.put(45); },
         Workload<Tile>::plain, 100},
        {"tiles, got from several large segments", 0, 45, [](auto& me) { me.get(45); },
         Workload<Tile>::plain, 100},
        {"tiles, put and got through many segments", 0, 1,
         [](auto& me) {
             for (int i = 0; i < 6; ++i) {
                 me.put(2);
                 me.get(2);
             }
         }},
    });
    over(std::vector<Workload<Sheet>>{
        {"sheets, put", 0, 1, [](auto& me) { me.put(2); }},
        {"sheets, put where there is no room", 1, 1, [](auto& me) { me.put_in_vain(); }},
        {"sheets, got", 0, 3, [](auto& me) { me.get(2); }},
        {"sheets, got at once", 0, 3, [](auto& me) { me.get_many(2); }},
        {"sheets in a queue that is shut down at once", 0, 2,
         [](auto& me) { me.queue().shutdown(true); }, Workload<Sheet>::shuts_down},
    });
    over(std::vector<Workload<Note>>{
        {"notes, put", 0, 0, [](auto& me) { me.put(2); }},
        {"notes, put at once", 0, 0, [](auto& me) { me.put_many(40); }},
        {"notes, got", 0, 2, [](auto& me) { me.get(2); }},
        {"notes, got at once", 0, 3, [](auto& me) { me.get_many(3); }},
    });
    over(std::vector<Workload<Volume>>{
        {"volumes, put", 0, 1, [](auto& me) { me.put(2); }},
        {"volumes, put at once", 0, 1, [](auto& me) { me.put_many(2); }},
        {"volumes, got", 0, 3, [](auto& me) { me.get(2); }},
        {"volumes, got at once", 0, 3, [](auto& me) { me.get_many(3); }},
    });
}

}  // namespace chaos
