// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/queues.hpp>

#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>

#include "conformance/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using support::Children;
using support::die;
using support::elapsed;
using support::NoLeak;
using support::patient;

namespace {

template <class T>
void echo(const mp::Queue<T>& in, const mp::Queue<T>& out) {
    out.put(in.get());
}

template <class T>
void check_echo(const std::string& method, const T& value) {
    const mp::Queue<T> there;
    const mp::Queue<T> back;
    Children children(method);
    children.start(echo<T>, there, back);
    there.put(value);
    CHECK(back.get(patient) == value);
    CHECK(children.join());
}

struct Point {
    double x;
    double y;
    friend bool operator==(const Point&, const Point&) = default;
};

struct Named {
    std::string name;
    std::vector<int> numbers;
    friend bool operator==(const Named&, const Named&) = default;
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & name & numbers;
    }
};

// Writes what it cannot read.
struct Unreadable {
    bool good = true;
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & good;
        if (!Archive::is_saving::value && !good) throw mp::UnpicklingError("never mind");
    }
};

void produce(const mp::Queue<int>& queue, int first, int count) {
    for (int i = 0; i < count; ++i) queue.put(first + i);
}
void consume(const mp::Queue<int>& queue, const mp::Value<std::int64_t>& sum) {
    for (const int item : queue) sum.fetch_add(item);
}
void expect_shut_down(const mp::Queue<int>& queue, const mp::Event& ready) {
    ready.set();
    try {
        static_cast<void>(queue.get());
    } catch (const mp::ShutDown&) {
        return;
    }
    support::expect(false, "an item came");
}

}  // namespace

TEST_CASE("a queue carries what can be pickled, short and long", "[queue][fork][spawn]") {
    EVERY_START_METHOD;
    check_echo(method, 42);
    check_echo(method, Point{1.5, -2});
    check_echo(method, std::string("a text"));
    check_echo(method, std::string(1'000'000, 'x'));  // in a run of its own
    check_echo(method, Named{"n", {1, 2, 3}});
    check_echo(method, Named{"long", std::vector<int>(100'000, 7)});
    check_echo(method, std::map<std::string, std::vector<int>>{{"a", {1}}, {"b", {2, 3}}});
    check_echo(method, std::optional<std::string>());
    check_echo(method, std::array<std::uint64_t, 2000>{1, 2, 3});  // bytes, too many for a record
}

TEST_CASE("items come out in the order of their producer, each once", "[queue][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Queue<int> queue(GENERATE(0, 1, 10));
    const mp::Value<std::int64_t> sum(0);
    Children producers(method);
    Children consumers(method);
    consumers.start(consume, queue, sum);
    consumers.start(consume, queue, sum);
    producers.start(produce, queue, 0, 1000);
    producers.start(produce, queue, 1000, 1000);
    CHECK(producers.join());
    queue.shutdown();
    CHECK(consumers.join());
    CHECK(sum.value() == 2000 * 1999 / 2);
}

TEST_CASE("put in every form", "[queue]") {
    const mp::Queue<int> queue(5);
    queue.put(1);
    queue.put(2, true, 1.5);
    queue.put(3, 1.5s);
    queue.put(4, false);
    queue.put_nowait(5);
    CHECK(queue.full());
    CHECK_THROWS_AS(queue.put(6, false), mp::Full);
    CHECK_THROWS_AS(queue.put(6, true, 0.01), mp::Full);
    CHECK_THROWS_AS(queue.put(6, 10ms), mp::Full);
    CHECK_THROWS_AS(queue.put(6, -1), mp::Full);
    CHECK_THROWS_AS(queue.put_nowait(6), mp::Full);
    CHECK_THROWS_WITH(queue.put_nowait(6), ContainsSubstring("full") && ContainsSubstring("5"));
    CHECK_FALSE(queue.try_put(6));
    CHECK_FALSE(queue.try_put(6, 0.01));
    CHECK(queue.get() == 1);
    CHECK(queue.try_put(6));
    CHECK(queue.qsize() == 5);
}

TEST_CASE("get in every form", "[queue]") {
    const mp::Queue<std::string> queue;
    for (const char* text : {"1", "2", "3", "4", "5", "6"}) queue.put(text);
    CHECK(queue.get() == "1");
    CHECK(queue.get(true, 1.5) == "2");
    CHECK(queue.get(1.5s) == "3");
    CHECK(queue.get_nowait() == "4");
    CHECK(queue.get(false) == "5");
    CHECK(queue.try_get() == "6");
    CHECK_THROWS_AS(queue.get(false), mp::Empty);
    CHECK_THROWS_AS(queue.get(true, 0.01), mp::Empty);
    CHECK_THROWS_AS(queue.get(10ms), mp::Empty);
    CHECK_THROWS_AS(queue.get_nowait(), mp::Empty);
    CHECK_THROWS_WITH(queue.get_nowait(), ContainsSubstring("empty"));
    CHECK(queue.try_get() == std::nullopt);
    CHECK(elapsed([&] { CHECK(queue.try_get(0.05) == std::nullopt); }) >= 50ms);
}

TEST_CASE("a size of 0 or less is no bound", "[queue]") {
    for (const int size : {0, -1, -1000}) {
        const mp::Queue<int> queue(size);
        for (int i = 0; i < 1000; ++i) queue.put_nowait(i);
        CHECK_FALSE(queue.full());
        CHECK(queue.qsize() == 1000);
    }
}

TEST_CASE("put_many takes any range", "[queue]") {
    const mp::Queue<int> queue;
    queue.put_many(std::vector<int>{1, 2, 3});
    queue.put_many(std::array<int, 2>{4, 5});
    queue.put_many(std::deque<int>{6, 7});
    queue.put_many(std::vector<int>());
    queue.put_many(std::initializer_list<int>{8});
    std::vector<int> all;
    while (const auto item = queue.try_get()) all.push_back(*item);
    CHECK(all == std::vector<int>{1, 2, 3, 4, 5, 6, 7, 8});

    const mp::Queue<std::string> strings;
    strings.put_many(std::vector<std::string>{"a", "b"});
    CHECK(strings.get() == "a");
    CHECK(strings.get() == "b");
}

TEST_CASE("put_many waits for room", "[queue][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Queue<int> queue(3);
    const mp::Value<std::int64_t> sum(0);
    Children children(method);
    children.start(consume, queue, sum);
    std::vector<int> numbers(1000);
    std::iota(numbers.begin(), numbers.end(), 0);
    queue.put_many(numbers);
    queue.shutdown();
    CHECK(children.join());
    CHECK(sum.value() == 1000 * 999 / 2);
}

namespace {

// A range whose elements are made by putting one more into the queue they are meant for.
struct PutsItself {
    struct iterator {
        using value_type = int;
        using difference_type = std::ptrdiff_t;
        const mp::Queue<int>* queue;
        int left;
        int operator*() const {
            queue->put(100);
            return left;
        }
        iterator& operator++() {
            --left;
            return *this;
        }
        void operator++(int) { ++*this; }
        bool operator==(std::default_sentinel_t) const { return left == 0; }
    };
    const mp::Queue<int>* queue;
    iterator begin() const { return {queue, 2}; }
    std::default_sentinel_t end() const { return {}; }
};

// Its pickling fails when it is told to.
struct Sulky {
    bool fails = false;
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        if (fails) throw std::runtime_error("I will not go");
        archive & fails;
    }
};

void put_when_told(const mp::Queue<int>& go, const mp::Queue<int>& queue, int times) {
    for (int i = 0; i < times; ++i) queue.put(go.get(patient));
}

}  // namespace

TEST_CASE("put_many holds nobody up while the range thinks", "[queue]") {
    const mp::Queue<int> queue;
    queue.put_many(PutsItself{&queue});
    CHECK(queue.get_many(10) == std::vector<int>{100, 2, 100, 1});
}

TEST_CASE("get_many takes what was put since the last look, too", "[queue]") {
    const auto check = [](const auto& queue, const auto& item) {
        for (int i = 0; i < 2; ++i) queue.put(item);
        CHECK(queue.get() == item);  // now the getting end knows of one more
        for (int i = 0; i < 5; ++i) queue.put(item);
        CHECK(queue.get_many(100).size() == 6);
    };
    check(mp::Queue<int>(), 7);
    check(mp::Queue<std::string>(), std::string("short"));
    check(mp::Queue<std::string>(), std::string(20'000, 'x'));
}

TEST_CASE("get_many takes all that is there, however much", "[queue]") {
    const mp::Queue<std::string> queue;
    const std::vector<std::string> texts(300, std::string(5000, 'x'));
    queue.put_many(texts);
    CHECK(queue.get_many(299).size() == 299);
    CHECK(queue.get_many(299) == std::vector<std::string>{texts.front()});
    CHECK(queue.empty());
}

TEST_CASE("put_many puts what came before an item that cannot be pickled", "[queue]") {
    const NoLeak leak;
    {
        const mp::Queue<Sulky> queue;
        std::vector<Sulky> items(5);
        items[3].fails = true;
        CHECK_THROWS_AS(queue.put_many(items), std::runtime_error);
        CHECK(queue.qsize() == 3);
        items[3].fails = false;
        queue.put_many(items);
        CHECK(queue.qsize() == 8);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("put_many and get_many keep the order of short items, long ones and handles", "[queue]") {
    const NoLeak leak;
    {
        const mp::Queue<std::string> queue;
        std::vector<std::string> texts;
        for (std::size_t i = 0; i < 3000; ++i) texts.push_back(std::string(i * i % 20'000, 'x'));
        queue.put_many(texts);
        queue.put_many(std::list<std::string>{"a", "b"});
        texts.push_back("a");
        texts.push_back("b");
        std::vector<std::string> got;
        while (got.size() < texts.size()) {
            for (auto& text : queue.get_many(100'000)) got.push_back(std::move(text));
        }
        CHECK(got == texts);
        const mp::Queue<mp::Queue<int>> handles;
        const std::vector<mp::Queue<int>> queues(3);
        handles.put_many(queues);
        CHECK(handles.get_many(5) == queues);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("put_many into a full queue goes on as there is room", "[queue][fork]") {
    const mp::Queue<std::string> queue(3);
    std::vector<std::string> texts;
    for (int i = 0; i < 200; ++i) texts.push_back(std::to_string(i));
    mp::Process producer([&] { queue.put_many(texts); });
    producer.start();
    for (const std::string& text : texts) CHECK(queue.get(patient) == text);
    producer.join(patient);
    CHECK(producer.exitcode() == 0);
}

TEST_CASE("a queue that has been drained gives its memory back", "[queue]") {
    const auto& heap = mp::shm::Arena::instance().header().heap;
    const mp::Queue<std::string> queue;
    const std::string text(1000, 'x');
    constexpr std::size_t items = 160'000;
    for (std::size_t i = 0; i < items; ++i) queue.put(text);
    const std::string slab(std::size_t{2} << 20, 'y');
    for (int i = 0; i < 40; ++i) queue.put(slab);
    const auto full = heap.committed.load();
    CHECK(full > items * text.size() + 40 * slab.size());
    for (std::size_t i = 0; i < items + 40; ++i) static_cast<void>(queue.get());
    CHECK(heap.committed.load() < full / 2);
}

TEST_CASE("a queue that was moved from is still the queue", "[queue]") {
    mp::Queue<int> queue;
    mp::Queue<int> other = std::move(queue);
    queue.put(1);
    CHECK(other == queue);
    CHECK(other.get(patient) == 1);
    mp::SimpleQueue<int> simple;
    const mp::SimpleQueue<int> another = std::move(simple);
    simple.put(2);
    CHECK(another.get() == 2);
    mp::JoinableQueue<int> joinable;
    const mp::JoinableQueue<int> third = std::move(joinable);
    joinable.put(3);
    CHECK(third.get(patient) == 3);
    joinable.task_done();
    CHECK(third.join(0));
}

TEST_CASE("a loop takes no item that it does not come to", "[queue]") {
    const mp::Queue<int> queue;
    queue.put_many({0, 1, 2});
    int next = 0;
    // As std::views::take(3) does, which clang 14 cannot compile with g++ 12's library.
    for (auto it = std::counted_iterator(queue.begin(), 3); it != std::default_sentinel; ++it) {
        CHECK(*it == next++);
    }
    CHECK(next == 3);
    queue.put_many({3, 4});
    for (const int item : queue) {
        CHECK(item == 3);
        break;
    }
    CHECK(queue.qsize() == 1);
    queue.shutdown();
    auto it = queue.begin();
    ++it;
    CHECK(it == queue.end());
}

TEST_CASE("a loop moves items out of the queue", "[queue]") {
    const mp::Queue<std::unique_ptr<int>> queue;
    for (int i = 0; i < 3; ++i) queue.put(std::make_unique<int>(i));
    queue.shutdown();
    int next = 0;
    for (std::unique_ptr<int> item : queue) CHECK(*item == next++);
    CHECK(next == 3);
    static_assert(std::input_iterator<mp::Queue<std::unique_ptr<int>>::iterator>);
}

TEST_CASE("select tells which queues have an item", "[queue]") {
    const mp::Queue<int> numbers;
    const mp::JoinableQueue<std::string> names;
    const mp::SimpleQueue<double> weights;
    using Indices = std::vector<std::size_t>;
    CHECK(mp::select({&numbers, &names, &weights}, 0).empty());
    CHECK(elapsed([&] { CHECK(mp::select({&numbers, &names}, 0.05).empty()); }) >= 50ms);
    CHECK(elapsed([&] { CHECK(mp::select(std::vector<mp::Queue<int>>(), 0.05).empty()); }) >= 50ms);
    CHECK_THROWS_AS(mp::select(std::vector<mp::Queue<int>>()), mp::ValueError);
    weights.put(1.5);
    CHECK(mp::select({&numbers, &names, &weights}) == Indices{2});
    numbers.put(1);
    CHECK(mp::select({&numbers, &names, &weights}, -1) == Indices{0, 2});
    CHECK(mp::select({numbers, names, weights}) == Indices{0, 2});
    CHECK(mp::select(std::vector{numbers, mp::Queue<int>()}) == Indices{0});
    CHECK(mp::select(std::vector{&names, &names}, 0).empty());
    // One of which there will be no more is ready, too: get would throw at once.
    names.shutdown();
    CHECK(mp::select({&names}) == Indices{0});
    numbers.close();
    CHECK_THROWS_AS(mp::select({&numbers}), mp::ValueError);
    const mp::Queue<int>* none = nullptr;
    CHECK_THROWS_AS(mp::select({none}), mp::ValueError);
}

TEST_CASE("select wakes for any of its queues, whoever puts", "[queue][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Queue<int> first;
    const mp::Queue<int> second;
    const mp::Queue<int> go;
    Children children(method);
    children.start(put_when_told, go, first, 100);
    children.start(put_when_told, go, second, 100);
    int got = 0;
    for (int round = 0; round < 200; ++round) {
        go.put(round);
        const auto ready = mp::select({&first, &second}, patient);
        REQUIRE(ready.size() == 1);
        CHECK((ready[0] == 0 ? first : second).get_nowait() == round);
        ++got;
    }
    CHECK(got == 200);
    CHECK(children.join());
}

TEST_CASE("many may select the same queues: each item is for one of them", "[queue][fork][crash]") {
    const mp::Queue<int> first;
    const mp::Queue<int> second;
    const mp::Queue<int> out;
    Children children("fork");
    for (int i = 0; i < 3; ++i) {
        children.start([=] {
            for (;;) {
                for (const std::size_t index : mp::select({&first, &second}, patient)) {
                    const auto item = (index == 0 ? first : second).try_get();
                    if (item == -1) return;
                    if (item) out.put(*item);
                }
            }
        });
    }
    // One who selects and is killed leaves nothing behind but a wake-up for nobody.
    const mp::Process doomed([=] { static_cast<void>(mp::select({&first, &second})); });
    doomed.start();
    doomed.kill();
    doomed.join();
    long sum = 0;
    for (int i = 1; i <= 300; ++i) {
        (i % 2 == 0 ? first : second).put(i);
        if (i % 3 == 0) {
            for (int n = 0; n < 3; ++n) sum += out.get(patient);
        }
    }
    CHECK(sum == 300 * 301 / 2);
    for (int i = 0; i < 3; ++i) first.put(-1);
    CHECK(children.join());
}

TEST_CASE("get_many takes what is there", "[queue]") {
    const mp::Queue<std::string> queue;
    CHECK(queue.get_many(5, 0).empty());
    CHECK(elapsed([&] { CHECK(queue.get_many(5, 0.05).empty()); }) >= 50ms);
    const std::string text(20'000, 'x');
    for (const auto& item : {std::string("a"), text, std::string("c"), std::string("d")}) {
        queue.put(item);
    }
    CHECK(queue.get_many(0).empty());
    CHECK(queue.get_many(3) == std::vector<std::string>{"a", text, "c"});
    CHECK(queue.get_many(3) == std::vector<std::string>{"d"});
    queue.shutdown();
    CHECK_THROWS_AS(queue.get_many(3), mp::ShutDown);
}

TEST_CASE("get_many waits for the first", "[queue][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Queue<int> queue;
    Children children(method);
    children.start(produce, queue, 5, 1);
    CHECK(queue.get_many(10, patient) == std::vector<int>{5});
    CHECK(children.join());
}

TEST_CASE("what cannot be read is gone, and the next is served", "[queue]") {
    const NoLeak leak;
    {
        const mp::Queue<Unreadable> queue(3);
        for (const bool good : {false, true}) queue.put(Unreadable{good});
        CHECK_THROWS_AS(queue.get(), mp::UnpicklingError);
        CHECK(queue.get().good);

        for (const bool good : {false, true, false}) queue.put(Unreadable{good});
        CHECK(queue.get_many(5).size() == 1);
        CHECK(queue.empty());
        // One error for each of the others, whatever is asked next.
        CHECK_THROWS_AS(queue.get_many(5), mp::UnpicklingError);
        queue.put(Unreadable{true});
        const mp::Queue<Unreadable> copy = queue;
        CHECK_THROWS_AS(copy.try_get(), mp::UnpicklingError);
        CHECK(queue.get().good);

        queue.put(Unreadable{false});
        CHECK_THROWS_AS(queue.get_many(5), mp::UnpicklingError);
        CHECK(queue.get_many(5, 0).empty());
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("what a process could not read is told to itself, not to its children", "[queue][fork]") {
    const mp::Queue<Unreadable> queue;
    const auto get_one_of_two = [&] {
        for (const bool good : {true, false}) queue.put(Unreadable{good});
        return queue.get_many(2).size() == 1;
    };
    CHECK(get_one_of_two());
    const mp::Process child([&] {
        if (queue.try_get() || !get_one_of_two()) mp::exit(2);
        try {
            static_cast<void>(queue.try_get());
            mp::exit(3);
        } catch (const mp::UnpicklingError&) {
        }
    });
    child.start();
    child.join();
    CHECK(child.exitcode() == 0);
    CHECK_THROWS_AS(queue.try_get(), mp::UnpicklingError);
    CHECK_FALSE(queue.try_get());
}

TEST_CASE("shutdown lets the rest be taken", "[queue]") {
    const mp::Queue<int> queue;
    queue.put(1);
    queue.put(2);
    queue.shutdown();
    queue.shutdown();
    CHECK_THROWS_AS(queue.put(3), mp::ShutDown);
    CHECK_THROWS_AS(queue.try_put(3), mp::ShutDown);
    CHECK_THROWS_AS(queue.put_nowait(3), mp::ShutDown);
    CHECK_THROWS_AS(queue.put_many(std::vector<int>{3}), mp::ShutDown);
    CHECK(queue.get() == 1);
    CHECK(queue.try_get() == 2);
    CHECK_THROWS_AS(queue.get(), mp::ShutDown);
    CHECK_THROWS_AS(queue.get_nowait(), mp::ShutDown);
    CHECK_THROWS_AS(queue.try_get(), mp::ShutDown);
    CHECK_THROWS_WITH(queue.get(), ContainsSubstring("shut down"));
}

TEST_CASE("an immediate shutdown discards the rest", "[queue]") {
    const NoLeak leak;
    {
        const mp::JoinableQueue<std::string> queue;
        queue.put("a");
        queue.put(std::string(50'000, 'x'));
        queue.shutdown(true);
        CHECK_THROWS_AS(queue.get(), mp::ShutDown);
        CHECK(queue.qsize() == 0);
        CHECK(queue.join(0));  // nobody waits for what nobody will do
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("shutdown wakes those who wait", "[queue][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Queue<int> queue(1);
    const mp::Event ready;
    Children children(method);
    children.start(expect_shut_down, queue, ready);
    CHECK(ready.wait(patient));
    queue.shutdown(GENERATE(false, true));
    CHECK(children.join());
}

TEST_CASE("a loop over a queue ends when it is shut down and drained", "[queue]") {
    const mp::Queue<std::string> queue;
    queue.put("a");
    queue.put("b");
    queue.shutdown();
    std::string all;
    for (std::string item : queue) all += item;
    CHECK(all == "ab");
    CHECK(queue.begin() == queue.end());
}

TEST_CASE("close is this process's own", "[queue][fork][spawn]") {
    EVERY_START_METHOD;
    const mp::Queue<int> queue;
    CHECK_THROWS_AS(queue.join_thread(), mp::AssertionError);
    Children children(method);
    children.start(produce, queue, 0, 3);
    queue.close();
    queue.join_thread();
    queue.cancel_join_thread();
    CHECK(children.join());
    CHECK(queue.qsize() == 3);
    CHECK_THROWS_AS(queue.put(1), mp::ValueError);
    CHECK_THROWS_AS(queue.try_put(1), mp::ValueError);
    CHECK_THROWS_AS(queue.put_many(std::vector<int>{1}), mp::ValueError);
    CHECK_THROWS_AS(queue.get(), mp::ValueError);
    CHECK_THROWS_AS(queue.try_get(), mp::ValueError);
    CHECK_THROWS_AS(queue.get_many(1), mp::ValueError);
    CHECK_THROWS_AS(queue.begin(), mp::ValueError);
}

TEST_CASE("a joinable queue is done when all is reported", "[queue][joinable]") {
    const mp::JoinableQueue<int> queue;
    CHECK(queue.join());
    CHECK_THROWS_AS(queue.task_done(), mp::ValueError);
    queue.put(1);
    CHECK_FALSE(queue.join(0));
    CHECK(elapsed([&] { CHECK_FALSE(queue.join(0.05)); }) >= 50ms);
    CHECK(queue.get() == 1);
    CHECK_FALSE(queue.join(0));
    std::thread worker([&] { queue.task_done(); });
    CHECK(queue.join(patient));
    worker.join();
    CHECK_THROWS_AS(queue.task_done(), mp::ValueError);
}

TEST_CASE("a simple queue", "[queue][simple]") {
    const mp::SimpleQueue<std::string> queue;
    CHECK(queue.empty());
    queue.put("x");
    CHECK_FALSE(queue.empty());
    CHECK(queue.get() == "x");
    queue.close();
    CHECK_THROWS_AS(queue.put("x"), std::system_error);
    CHECK_THROWS_AS(queue.get(), std::system_error);
    try {
        static_cast<void>(queue.empty());
        FAIL("it is closed");
    } catch (const std::system_error& error) {
        CHECK(error.code() == std::errc::bad_file_descriptor);
    }
}

TEST_CASE("handles of queues are compared by what they are handles of", "[queue]") {
    const mp::Queue<int> a;
    const mp::Queue<int> b = a;
    const mp::Queue<int> c;
    CHECK(a == b);
    CHECK_FALSE(a == c);
}

namespace {

void answer_through_queue(const mp::Queue<mp::Queue<int>>& queues) {
    const mp::Queue<int> reply = queues.get(patient);
    reply.put(42);
}
struct Request {
    int number = 0;
    mp::Queue<int> reply;
    mp::Lock lock;
    mp::Value<int> value;
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive & number & reply & lock & value;
    }
};
void answer(const mp::Queue<Request>& requests) {
    for (const Request& request : requests) {
        const std::lock_guard guard(request.lock);
        request.value.value() += request.number;
        request.reply.put(request.number * 2);
    }
}

}  // namespace

TEST_CASE("a queue travels through a queue", "[queue][fork][spawn]") {
    EVERY_START_METHOD;
    const NoLeak leak;
    {
        const mp::Queue<mp::Queue<int>> queues;
        Children children(method);
        children.start(answer_through_queue, queues);
        const mp::Queue<int> reply;  // made after the child was
        queues.put(reply);
        CHECK(reply.get(patient) == 42);
        CHECK(children.join());
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("so do handles inside an object", "[queue][fork][spawn]") {
    EVERY_START_METHOD;
    const NoLeak leak;
    {
        const mp::Queue<Request> requests;
        Children children(method);
        children.start(answer, requests);
        for (int i = 0; i < 20; ++i) {
            const Request request{i, mp::Queue<int>(), mp::Lock(), mp::Value<int>(100)};
            requests.put(request);
            CHECK(request.reply.get(patient) == 2 * i);
            CHECK(request.value.value() == 100 + i);
        }
        requests.shutdown();
        CHECK(children.join());
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("undelivered handles go with the queue that bears them", "[queue]") {
    const NoLeak leak;
    {
        const mp::Queue<Request> requests(3);
        for (int i = 0; i < 3; ++i) requests.put({i, mp::Queue<int>(), mp::Lock(), mp::Value<int>()});
        // Nor is what could not be put kept.
        CHECK_FALSE(requests.try_put({3, mp::Queue<int>(), mp::Lock(), mp::Value<int>()}));
        CHECK(leak.leaked() > 0);
    }
    CHECK(leak.leaked() == 0);
    {
        const mp::Queue<Request> requests;
        requests.put({1, mp::Queue<int>(), mp::Lock(), mp::Value<int>()});
        requests.shutdown(true);
        CHECK_THROWS_AS(requests.get(), mp::ShutDown);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a queue that only a message bears lives on", "[queue]") {
    const mp::Queue<mp::Queue<std::string>> queues;
    {
        const mp::Queue<std::string> inner;
        inner.put("still here");
        queues.put(inner);
    }
    CHECK(queues.get().get() == "still here");
}

TEST_CASE("a queue used by many threads", "[queue][threads]") {
    const mp::Queue<std::string> queue(5);
    std::atomic<std::size_t> length{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 500; ++i) queue.put(std::string(static_cast<std::size_t>(i), 'x'));
        });
        threads.emplace_back([&] {
            for (int i = 0; i < 500; ++i) length += queue.get(patient).size();
        });
    }
    for (auto& thread : threads) thread.join();
    CHECK(length == 2 * 500 * 499 / 2);
    CHECK(queue.empty());
}

TEST_CASE("an item is there for good once put has returned, whoever dies", "[queue][crash]") {
    const mp::Queue<std::string> queue;
    mp::Process producer([queue] {
        for (int i = 0; i < 100; ++i) queue.put(std::to_string(i));
        queue.put(std::string(100'000, 'x'));
        die();
    });
    producer.start();
    producer.join(patient);
    CHECK(producer.exitcode() == -SIGKILL);
    CHECK(queue.qsize() == 101);
    for (int i = 0; i < 100; ++i) CHECK(queue.get(patient) == std::to_string(i));
    CHECK(queue.get(patient).size() == 100'000);
}

TEST_CASE("a consumer that is killed loses at most the item it was taking", "[queue][crash]") {
    const NoLeak leak;
    {
        const mp::Queue<std::vector<int>> queue;
        const mp::Value<int> taken(0);
        int put = 0;
        int lost = 0;
        for (int round = 1; round <= 20; ++round) {
            const mp::Event ready;
            mp::Process consumer([queue, taken, ready] {
                ready.set();
                for (;;) {
                    const auto item = queue.get();
                    taken.fetch_add(1);
                }
            });
            consumer.start();
            CHECK(ready.wait(patient));
            for (int i = 0; i < round * 10; ++i, ++put) {
                queue.put(std::vector<int>(i % 2 == 0 ? 10 : 10'000));
            }
            consumer.kill();
            consumer.join(patient);
            int rest = 0;
            while (queue.try_get()) ++rest;
            const int missing = put - lost - taken.value() - rest;
            CHECK(missing >= 0);
            CHECK(missing <= 1);
            lost += missing;
            put -= rest;
        }
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a peer that dies at a full or an empty queue holds nobody up", "[queue][crash]") {
    const mp::Queue<int> queue(1);
    const mp::Event ready;
    queue.put(1);
    mp::Process putter([queue, ready] {
        ready.set();
        queue.put(2);
    });
    putter.start();
    CHECK(ready.wait(patient));
    putter.kill();
    putter.join(patient);
    while (queue.try_get(0)) {  // perhaps it had put it
    }
    queue.put(3, true, patient);
    CHECK(queue.get(patient) == 3);
}
