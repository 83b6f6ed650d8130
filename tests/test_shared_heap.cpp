// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/shared_heap.hpp>

#include <multiprocessing/connection.hpp>
#include <multiprocessing/context.hpp>
#include <multiprocessing/pickle.hpp>
#include <multiprocessing/pool.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/queues.hpp>

#include "runtime/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cstddef>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
namespace shared = multiprocessing::shared;
using Catch::Matchers::ContainsSubstring;

namespace {

using Numbers = shared::vector<int>;
using Words = shared::map<shared::string, int>;
using Index = shared::unordered_map<shared::string, shared::vector<shared::string>>;

/// A user's own class of shared containers.
struct Person {
    using allocator_type = shared::allocator<>;
    shared::string name;
    shared::vector<shared::string> nicknames;
    int age = 0;

    explicit Person(const allocator_type& allocator) : name(allocator), nicknames(allocator) {}
    Person(const char* text, int years, const allocator_type& allocator)
        : name(text, allocator), nicknames(allocator), age(years) {}
};

const std::string long_text =
    "a text that is longer than what fits a string without memory of its own";

}  // namespace

TEST_CASE("an object is made, found and destroyed by name", "[shared_heap]") {
    const mp::SharedHeap heap(1 << 16);
    CHECK_FALSE(heap.find<Numbers>("numbers"));
    const auto numbers = heap.construct<Numbers>("numbers", {1, 2, 3});
    REQUIRE(numbers);
    numbers->push_back(4);
    CHECK(heap.find<Numbers>("numbers") == numbers);
    CHECK(*heap.find<Numbers>("numbers") == Numbers{1, 2, 3, 4});
    CHECK(heap.find_or_construct<Numbers>("numbers") == numbers);
    CHECK(heap.find_or_construct<Numbers>("others", std::size_t{3}, 7)->size() == 3);
    auto names = heap.names();
    std::sort(names.begin(), names.end());
    CHECK(names == std::vector<std::string>{"numbers", "others"});

    CHECK(heap.destroy<Numbers>("numbers"));
    CHECK_FALSE(heap.destroy<Numbers>("numbers"));
    CHECK_FALSE(heap.find<Numbers>("numbers"));
    CHECK_THROWS_WITH(numbers->size(), ContainsSubstring("destroyed"));
    CHECK_THROWS_AS(*numbers, mp::ValueError);
    CHECK_FALSE(numbers);
    CHECK(numbers.get() != nullptr);
    CHECK(heap.construct<Numbers>("numbers")->empty());
}

TEST_CASE("containers of containers are in the heap with all of their parts", "[shared_heap]") {
    const std::string method = GENERATE(from_range(mp::get_all_start_methods()));
    const mp::SharedHeap heap(4096);
    const auto index = heap.construct<Index>("index");
    const auto words = heap.construct<Words>("words");
    const auto queue = heap.construct<shared::deque<double>>("queue", std::size_t{2}, 0.5);
    const auto people = heap.construct<shared::list<Person>>("people");
    const auto child = mp::get_context(method).Process(
        [](const mp::SharedHeap& same, const mp::SharedPtr<Words>& counts) {
            counts->emplace(long_text.c_str(), 1);
            counts.synchronized([](Words& all) { all["short"] += 2; });
            const auto found = same.find<Index>("index");
            found.synchronized([](Index& all) {
                for (int i = 0; i < 100; ++i)
                    all[long_text.c_str()].emplace_back((long_text + "!").c_str());
            });
            same.find<shared::deque<double>>("queue")->push_front(1.5);
            const auto them = same.find<shared::list<Person>>("people");
            them->emplace_back("Ada", 36);
            them->back().nicknames.emplace_back(long_text.c_str());
        },
        heap, words);
    CHECK(support::run(child) == 0);
    CHECK(words->at(long_text.c_str()) == 1);
    CHECK(words->at("short") == 2);
    CHECK(index->at(long_text.c_str()).size() == 100);
    CHECK(index->at(long_text.c_str()).back() == (long_text + "!").c_str());
    CHECK(*queue == shared::deque<double>{1.5, 0.5, 0.5});
    CHECK(people->front().name == "Ada");
    CHECK(people->front().nicknames.front() == long_text.c_str());
    // What is made here is as good there.
    people->front().nicknames.emplace_back("Countess");
    const auto other = mp::get_context(method).Process(
        [](const mp::SharedHeap& same) {
            const auto nicknames =
                same.find<shared::list<Person>>("people")->front().nicknames;  // a copy
            if (nicknames.size() != 2 || nicknames.back() != "Countess") mp::exit(3);
        },
        heap);
    CHECK(support::run(other) == 0);
}

TEST_CASE("what is made outside of a heap is an object like any other, and copied into it",
          "[shared_heap]") {
    shared::string text(long_text.c_str());
    shared::vector<shared::string> texts;
    texts.push_back(text);
    CHECK(texts.front() == text);
    CHECK(texts.front().get_allocator().heap() == nullptr);
    const mp::SharedHeap heap(4096);
    const auto inside = heap.construct<shared::vector<shared::string>>("inside");
    inside->push_back(std::move(text));
    CHECK(inside->front() == long_text.c_str());
    CHECK(inside->front().get_allocator().heap() != nullptr);
    inside->front() = shared::string((long_text + long_text).c_str());
    CHECK(inside->front().get_allocator().heap() != nullptr);
    texts = *inside;
    CHECK(texts.front().get_allocator().heap() == nullptr);
}

TEST_CASE("a call through -> has the lock, so several processes may call at once",
          "[shared_heap]") {
    const mp::SharedHeap heap(1024);
    const auto numbers = heap.construct<Numbers>("numbers");
    const auto count = heap.construct<long>("count", 0);
    constexpr int times = 3000;
    const auto work = [&] {
        for (int i = 0; i < times; ++i) {
            numbers->push_back(i);
            count.synchronized([](long& n) { n += 1; });
        }
    };
    std::vector<mp::Process> processes;
    for (int i = 0; i < 3; ++i) {
        processes.emplace_back(work);
        processes.back().start();
    }
    std::thread thread(work);
    for (const auto& process : processes) CHECK(support::ended(process) == 0);
    thread.join();
    CHECK(*count == 4 * times);
    CHECK(numbers->size() == 4 * times);
    CHECK(std::accumulate(numbers->begin(), numbers->end(), 0L) == 4L * times * (times - 1) / 2);
}

TEST_CASE("the lock of an object is a lock like any other, and recursive", "[shared_heap]") {
    const mp::SharedHeap heap(1024);
    const auto numbers = heap.construct<Numbers>("numbers");
    {
        const std::lock_guard guard(numbers.get_lock());
        numbers->push_back(1);
        numbers.synchronized(
            [&](Numbers& all) { all.push_back(static_cast<int>(numbers->size())); });
        std::thread([&] { CHECK_FALSE(numbers.get_lock().acquire(false)); }).join();
        std::thread([&] { CHECK_FALSE(numbers.try_lock()); }).join();
    }
    {
        const std::lock_guard guard(numbers);
        CHECK(numbers.get_lock().locked());
    }
    CHECK_THROWS_AS(numbers.release(), mp::AssertionError);
    CHECK_FALSE(numbers.get_lock().locked());
    CHECK_THROWS_AS(numbers.synchronized([](Numbers&) { throw std::out_of_range("mine"); }),
                    std::out_of_range);
    CHECK_FALSE(numbers.get_lock().locked());
    CHECK(*numbers == Numbers{1, 1});
}

TEST_CASE("handles of a heap and its objects go through queues, pipes and pools",
          "[shared_heap][pool]") {
    const mp::SharedHeap heap(1024);
    const auto numbers = heap.construct<Numbers>("numbers", {1});
    const mp::Queue<mp::SharedPtr<Numbers>> queue;
    queue.put(numbers);
    queue.put(mp::SharedPtr<Numbers>());
    CHECK(queue.get() == numbers);
    CHECK_FALSE(queue.get());
    const auto [a, b] = mp::Pipe();
    a.send(heap);
    CHECK(b.recv<mp::SharedHeap>() == heap);
    a.send(numbers);
    CHECK_THROWS_AS(b.recv<mp::SharedPtr<Words>>(), mp::UnpicklingError);
    CHECK_THROWS_AS(mp::pickle::dumps(numbers), mp::PicklingError);
    const mp::Pool pool(2);
    const auto add = [](const mp::SharedPtr<Numbers>& to, int n) { to->push_back(n); };
    std::vector<std::tuple<mp::SharedPtr<Numbers>, int>> tasks;
    for (int i = 0; i < 50; ++i) tasks.emplace_back(numbers, i);
    pool.starmap(add, tasks);
    CHECK(numbers->size() == 51);
}

TEST_CASE("a heap ends with the last handle of it or of its objects", "[shared_heap]") {
    const support::NoLeak leak;
    {
        mp::SharedPtr<Numbers> numbers;
        {
            const mp::SharedHeap heap(1 << 20);
            numbers = heap.construct<Numbers>("numbers");
            static_cast<void>(heap.construct<Index>("index"));
        }
        numbers->resize(100'000);
        CHECK(numbers->back() == 0);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a heap grows as what is in it, and gives back what it needs no more", "[shared_heap]") {
    const support::NoLeak leak;
    {
        const mp::SharedHeap heap(1);
        const auto first = heap.size();
        const auto numbers = heap.construct<Numbers>("numbers");
        numbers->resize(5'000'000, 7);
        CHECK(heap.size() >= 20'000'000);
        CHECK(std::all_of(numbers->begin(), numbers->end(), [](int n) { return n == 7; }));
        CHECK(heap.destroy<Numbers>("numbers"));
        CHECK(heap.size() <= first * 2 + (1 << 20));
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("what a heap cannot do is refused, and nothing has changed", "[shared_heap]") {
    CHECK_THROWS_AS(mp::SharedHeap(0), mp::ValueError);
    CHECK_THROWS_WITH(mp::SharedHeap(-5), ContainsSubstring("-5"));
    CHECK_THROWS_AS(mp::SharedHeap(std::size_t{1} << 50), std::bad_alloc);
    const mp::SharedHeap heap(4096);
    const auto numbers = heap.construct<Numbers>("numbers", {1});
    CHECK_THROWS_AS(heap.construct<Numbers>("numbers"), mp::ValueError);
    CHECK_THROWS_AS(heap.construct<Words>("numbers"), mp::ValueError);
    CHECK_THROWS_AS(heap.construct<int>(""), mp::ValueError);
    CHECK_THROWS_AS(heap.find_or_construct<int>(""), mp::ValueError);
    CHECK_THROWS_WITH(heap.find<Words>("numbers"), ContainsSubstring("'numbers'") &&
                                                       ContainsSubstring("vector<int") &&
                                                       ContainsSubstring("map<") &&
                                                       !ContainsSubstring("alloc"));
    CHECK_THROWS_AS(heap.find_or_construct<long>("numbers"), mp::ValueError);
    CHECK_THROWS_AS(heap.destroy<Words>("numbers"), mp::ValueError);
    CHECK_FALSE(heap.destroy<Words>("nobody"));
    CHECK(*numbers == Numbers{1});
    const auto room = heap.free_memory();
    CHECK_THROWS_AS(numbers->reserve(std::size_t{1} << 40), std::bad_alloc);
    CHECK(*numbers == Numbers{1});
    CHECK(heap.free_memory() == room);
    CHECK(heap.names().size() == 1);
}

TEST_CASE("an empty SharedPtr says so", "[shared_heap]") {
    const mp::SharedPtr<Numbers> none;
    CHECK_FALSE(none);
    CHECK(none.get() == nullptr);
    CHECK_THROWS_AS(none->size(), mp::AssertionError);
    CHECK_THROWS_AS(*none, mp::AssertionError);
    CHECK_THROWS_AS(none.get_lock(), mp::AssertionError);
    CHECK_THROWS_AS(none.lock(), mp::AssertionError);
    CHECK_THROWS_AS(none.broken(), mp::AssertionError);
    mp::SharedPtr<int> moved = mp::SharedHeap(1024).construct<int>("n", 1);
    const mp::SharedPtr<int> taken = std::move(moved);
    CHECK(*moved == 1);
}

TEST_CASE("a constructor that throws leaves no name and no memory", "[shared_heap]") {
    struct Refuses {
        using allocator_type = shared::allocator<>;
        shared::vector<int> numbers;
        explicit Refuses(const allocator_type& allocator) : numbers(allocator) {
            numbers.resize(100);
            throw std::out_of_range("not today");
        }
    };
    const mp::SharedHeap heap(4096);
    const auto room = heap.free_memory();
    CHECK_THROWS_AS(heap.construct<Refuses>("it"), std::out_of_range);
    CHECK(heap.names().empty());
    CHECK(heap.free_memory() == room);
}

TEST_CASE("of several who find or construct one makes the object", "[shared_heap]") {
    const mp::SharedHeap heap(1 << 20);
    const auto room = heap.free_memory();
    const mp::Barrier together(4);
    std::vector<mp::Process> processes;
    for (int i = 0; i < 4; ++i) {
        processes.emplace_back([&] {
            for (int round = 0; round < 50; ++round) {
                together.wait(20);
                const std::string name = "round " + std::to_string(round);
                heap.find_or_construct<Numbers>(name, std::size_t{500}, 1)->push_back(1);
            }
        });
        processes.back().start();
    }
    for (const auto& process : processes) CHECK(support::ended(process) == 0);
    CHECK(heap.names().size() == 50);
    for (const std::string& name : heap.names()) {
        CHECK(heap.find<Numbers>(name)->size() == 504);
        CHECK(heap.destroy<Numbers>(name));
    }
    CHECK(heap.free_memory() == room);  // who came second has given back what it had made
}

TEST_CASE("an object whose lock died with its holder is broken, until it is looked at or destroyed",
          "[shared_heap][crash]") {
    const mp::SharedHeap heap(4096);
    const auto numbers = heap.construct<Numbers>("numbers", {1, 2});
    const auto others = heap.construct<Numbers>("others", {3});
    const mp::Process doomed([&] {
        numbers.synchronized([](Numbers& all) {
            all.push_back(3);
            support::die();
        });
    });
    CHECK(support::run(doomed) == -SIGKILL);
    CHECK_THROWS_AS(numbers->size(), mp::BrokenHeapError);
    CHECK_THROWS_AS(numbers->size(), mp::BrokenHeapError);  // and not only once
    CHECK_THROWS_AS(*numbers, mp::BrokenHeapError);
    CHECK(numbers.broken());
    CHECK_FALSE(numbers.get_lock().locked());
    CHECK(*others == Numbers{3});
    CHECK_FALSE(heap.broken());

    SECTION("it is looked at") {
        CHECK_THROWS_AS(numbers.mark_consistent(), mp::AssertionError);
        CHECK(numbers.broken());
        const std::lock_guard guard(numbers.get_lock());
        CHECK(numbers.get()->size() == 3);
        numbers.mark_consistent();
        CHECK(numbers->size() == 3);
    }
    SECTION("another dies, and it is looked at by who gets the lock from it") {
        {
            const std::lock_guard guard(numbers);
            numbers.mark_consistent();
        }
        const mp::Process again([&] {
            const std::lock_guard guard(numbers);
            support::die();
        });
        CHECK(support::run(again) == -SIGKILL);
        const std::lock_guard guard(numbers);
        CHECK_THROWS_AS(*numbers, mp::BrokenHeapError);
        numbers.mark_consistent();
        CHECK_FALSE(numbers.broken());
        CHECK(numbers->size() == 3);
        CHECK((*numbers)[2] == 3);
    }
    SECTION("it is destroyed") {
        CHECK(heap.destroy<Numbers>("numbers"));
        CHECK_THROWS_AS(numbers->size(), mp::ValueError);
        CHECK(heap.construct<Numbers>("numbers")->empty());
    }
    SECTION("a child is told by the same exception") {
        const mp::Pool pool(1);
        CHECK_THROWS_AS(
            pool.apply([](const mp::SharedPtr<Numbers>& n) { return n->size(); }, numbers),
            mp::BrokenHeapError);
    }
}

TEST_CASE("who takes the lock of the dead by hand is told by it", "[shared_heap][crash]") {
    const mp::SharedHeap heap(4096);
    const auto numbers = heap.construct<Numbers>("numbers", {1, 2});
    const mp::Process doomed([&] {
        numbers.get_lock().acquire();
        support::die();
    });
    CHECK(support::run(doomed) == -SIGKILL);
    {
        const std::lock_guard guard(numbers.get_lock());
        CHECK(numbers.get_lock().abandoned());
        CHECK(numbers.broken());
        CHECK_THROWS_AS(numbers->size(), mp::BrokenHeapError);
        CHECK(numbers.get()->size() == 2);
    }
    CHECK(numbers.broken());  // it was asked for in between
}

TEST_CASE("a handle that is locked and let go leaves an object of the dead broken",
          "[shared_heap][crash]") {
    const mp::SharedHeap heap(4096);
    const auto numbers = heap.construct<Numbers>("numbers", {1, 2});
    const mp::Process doomed([&] {
        numbers.lock();
        support::die();
    });
    CHECK(support::run(doomed) == -SIGKILL);
    numbers.lock();
    // For others, too, as long as it is not found to be whole.
    std::thread([&] { CHECK_THROWS_AS(numbers->size(), mp::BrokenHeapError); }).join();
    numbers.unlock();
    CHECK_FALSE(numbers.get_lock().abandoned());
    CHECK_THROWS_AS(numbers->size(), mp::BrokenHeapError);
}

TEST_CASE("processes that are killed while they change containers hang nobody",
          "[shared_heap][crash]") {
    const mp::SharedHeap heap(4096);
    int broken = 0;
    for (int round = 0; round < 30; ++round) {
        const auto words = heap.find_or_construct<Words>("words");
        const mp::Process writer([&] {
            for (int i = 0;; ++i) {
                words->emplace(std::to_string(i % 1000).c_str(), i);
                words->erase(std::to_string((i + 500) % 1000).c_str());
            }
        });
        writer.start();
        std::this_thread::sleep_for(std::chrono::microseconds(500 + 100 * round));
        writer.kill();
        CHECK(support::ended(writer) == -SIGKILL);
        try {
            words->emplace("mine", 1);
            CHECK(words->count("mine") == 1);
        } catch (const mp::BrokenHeapError&) {
            ++broken;
            CHECK(heap.destroy<Words>("words"));
        }
    }
    CHECK(broken > 0);  // it has the lock nearly all the time
}
