// SPDX-License-Identifier: BSL-1.0
//
// Objects of a program's own in a manager: calls, exceptions, references, and how proxies travel.
#include <multiprocessing/managers.hpp>

#include <multiprocessing/connection.hpp>
#include <multiprocessing/context.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/pickle.hpp>
#include <multiprocessing/pool.hpp>
#include <multiprocessing/queues.hpp>

#include "managers/helpers.hpp"
#include "runtime/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <vector>

namespace mp = multiprocessing;
using Catch::Matchers::ContainsSubstring;
using managed::Counter;
using managed::Witness;
using mp::managers::ListProxy;
using mp::managers::Proxy;
using support::error_of;

namespace {

class Unknown : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};
class Known : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

struct Thrower {
    void unknown() { throw Unknown("who am I"); }
    void known() {
        mp::register_exception<Known>();
        throw Known("it is me");
    }
};

/// Two calls that need each other.
class Meeting {
public:
    using is_thread_safe = void;
    bool meet() {
        std::unique_lock lock(mutex_);
        if (++here_ == 2) met_.notify_all();
        return met_.wait_for(lock, std::chrono::seconds(20), [this] { return here_ == 2; });
    }

private:
    std::mutex mutex_;
    std::condition_variable met_;
    int here_ = 0;
};

/// Not safe for threads: two calls at the same time would be seen.
struct Careful {
    std::atomic<int> inside{0};
    bool disturbed = false;
    void call() {
        disturbed = disturbed || inside.fetch_add(1) != 0;
        std::this_thread::yield();
        inside.fetch_sub(1);
    }
};

/// Uses another object of its server.
struct Summing {
    ListProxy<int> list;
    explicit Summing(ListProxy<int> of) : list(std::move(of)) {}
    int sum() {
        int result = 0;
        for (const int each : list) result += each;
        list.append(result);
        return result;
    }
};

struct Keeper {
    void keep(mp::Event event) { events.append(event); }
    void set_first() { events.at(0).set(); }
    ListProxy<mp::Event> events;
};

struct Selfish {
    std::optional<Proxy<Selfish>> self;
    int depth = 0;
    void know(Proxy<Selfish> me) { self = std::move(me); }
    void forget() { self.reset(); }
    int dive(int levels) {
        ++depth;
        return levels == 0 ? depth : self->call<&Selfish::dive>(levels - 1);
    }
};

}  // namespace

TEST_CASE("functions of a program's own classes are called in the server", "[managers]") {
    const auto manager = mp::Manager();
    const auto counter = manager.create<Counter>("ann", 10);
    CHECK(counter.call<&Counter::add>(3) == 13);
    CHECK(counter.call<&Counter::total>() == 13);
    CHECK(counter.call<&Counter::grow>() == 14);
    CHECK(counter.call<&Counter::who>() == "ann");  // inherited
    CHECK(counter.call<&Counter::rename>("bob") == "bob");
    CHECK(counter.call<&Counter::name>() == "bob");
    CHECK(counter.call<&Counter::length>("four") == 4);
    std::vector<int> all{1, 2, 3};
    counter.call<&Counter::take_all>(all);
    CHECK(all.size() == 3);  // it was a copy that was taken
    CHECK(counter.call<&Counter::sum>(std::vector{1}, std::map<std::string, int>{{"x", 2}}) == 23);
    CHECK(counter.call<&managed::twice>(2) == 24);
    CHECK(counter.apply([](Counter& each, int n) { return each.total - n; }, 4) == 20);
    CHECK(counter.call<&Counter::pid>() == manager.process()->pid());
    CHECK(manager.create<Counter>().call<&Counter::total>() == 0);
    CHECK(manager.create<Counter>(5).call<&Counter::total>() == 5);
    CHECK(manager.create<managed::Named>("carl").call<&managed::Named::who>() == "carl");
}

TEST_CASE("many calls go in one request, and none of others come between", "[managers]") {
    const auto manager = mp::Manager();
    const auto counter = manager.create<Counter>();
    CHECK(counter.call_many<&Counter::add>(std::vector{1, 2, 3}) == std::vector{1, 3, 6});
    CHECK(counter.call_many<&Counter::sum>(
              std::vector<std::tuple<std::vector<int>, std::map<std::string, int>>>{
                  {{1}, {}}, {{2}, {{"x", 1}}}}) == std::vector{7, 9});
    CHECK(counter.call_many<&Counter::add>(std::vector<int>{}).empty());
    CHECK_THROWS_AS(
        counter.call_many<&Counter::fail>(std::vector<std::string>{"", "range", "empty"}),
        std::out_of_range);
    CHECK(counter.call<&Counter::total>() == 6);
}

TEST_CASE("an exception of a managed object is thrown here, as what it was", "[managers]") {
    const auto manager = mp::Manager();
    const auto counter = manager.create<Counter>();
    CHECK_THROWS_AS(counter.call<&Counter::fail>("range"), std::out_of_range);
    CHECK(error_of([&] { counter.call<&Counter::fail>("system"); }) == ENOSPC);
    CHECK_THROWS_AS(counter.call<&Counter::fail>("empty"), mp::Empty);
    CHECK_THROWS_AS(counter.call<&Counter::fail>("text"), mp::RemoteError);
    try {
        counter.call<&Counter::fail>("range");
        FAIL("it was to throw");
    } catch (const mp::RemoteTraceback& where) {
        CHECK(where.pid() == manager.process()->pid());
        CHECK(where.process_name() == "Manager");
        CHECK(where.type_name() == "std::out_of_range");
    }
    const auto thrower = manager.create<Thrower>();
    CHECK_THROWS_AS(thrower.call<&Thrower::known>(), Known);
    CHECK_THROWS_WITH(thrower.call<&Thrower::unknown>(), ContainsSubstring("who am I"));
    CHECK_THROWS_AS(thrower.call<&Thrower::unknown>(), mp::RemoteError);
    counter.call<&Counter::fail>("");  // and it goes on
}

TEST_CASE("calls of one object exclude each other unless its class is safe for threads",
          "[managers]") {
    const auto manager = mp::Manager();
    const auto counter = manager.create<Counter>();
    const auto careful = manager.create<Careful>();
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            for (int j = 0; j < 100; ++j) {
                counter.call<&Counter::add>(1);
                careful.call<&Careful::call>();
            }
        });
    }
    for (std::thread& each : threads) each.join();
    CHECK(counter.call<&Counter::total>() == 400);
    CHECK_FALSE(careful.call<&Careful::disturbed>());
    const auto meeting = manager.create<Meeting>();
    bool other = false;
    std::thread first([&] { other = meeting.call<&Meeting::meet>(); });
    CHECK(meeting.call<&Meeting::meet>());
    first.join();
    CHECK(other);
}

TEST_CASE("an object ends with its last proxy, wherever that is", "[managers]") {
    const auto manager = mp::Manager();
    const mp::Event ended;
    // No std::optional, of which g++ 12 warns.
    auto proxy = std::make_unique<Proxy<Witness>>(manager.create<Witness>(ended));
    CHECK(manager.number_of_objects() == 1);
    {
        const Proxy<Witness> copy = *proxy;
        proxy.reset();
        CHECK(copy.call<&Witness::answer>() == 42);
        CHECK_FALSE(ended.is_set());
    }
    CHECK(ended.is_set());
    CHECK(manager.number_of_objects() == 0);

    const mp::Event again;
    const auto list = manager.list<Proxy<Witness>>();
    list.append(manager.create<Witness>(again));
    CHECK(list[0]->call<&Witness::answer>() == 42);
    CHECK_FALSE(again.is_set());
    static_cast<void>(list.pop());
    CHECK(again.is_set());
    CHECK(manager.number_of_objects() == 1);
}

TEST_CASE("a chain of proxies ends as a whole, however long", "[managers]") {
    const auto manager = mp::Manager();
    using Link = ListProxy<mp::managers::NamespaceProxy>;
    struct Chain {
        static void grow(std::vector<ListProxy<Link>>& all, const mp::managers::SyncManager& m) {
            all.push_back(m.list<Link>());
        }
    };
    std::vector<ListProxy<Link>> outer;
    Chain::grow(outer, manager);
    for (int i = 0; i < 50; ++i) {
        const auto inner = manager.list<mp::managers::NamespaceProxy>();
        inner.append(manager.Namespace());
        outer[0].append(inner);
    }
    CHECK(manager.number_of_objects() == 101);
    outer.clear();
    CHECK(manager.number_of_objects() == 0);
}

TEST_CASE("proxies travel to processes of each kind, and by all that carries messages",
          "[managers]") {
    const std::string method = GENERATE(from_range(mp::get_all_start_methods()));
    const auto manager = mp::Manager();
    const auto counter = manager.create<Counter>();
    const auto context = mp::get_context(method);
    const auto add_one = [](const Proxy<Counter>& same) { same.call<&Counter::add>(1); };
    CHECK(support::run(context.Process(add_one, counter)) == 0);
    CHECK(counter.call<&Counter::total>() == 1);

    const mp::Queue<Proxy<Counter>> queue;
    const auto [ours, theirs] = mp::Pipe();
    queue.put(counter);
    ours.send(std::vector{counter, counter});
    const auto child = context.Process(
        [](const mp::Queue<Proxy<Counter>>& from, const mp::Connection& line) {
            from.get(20).call<&Counter::add>(10);
            const auto both = line.recv<std::vector<Proxy<Counter>>>();
            both.at(1).call<&Counter::add>(100);
            line.send(both.at(0));
        },
        queue, theirs);
    CHECK(support::run(child) == 0);
    CHECK(counter.call<&Counter::total>() == 111);
    CHECK(ours.recv<Proxy<Counter>>() == counter);

    const auto pool = context.Pool(2);
    const auto work = [](const Proxy<Counter>& same, int n) {
        same.call<&Counter::add>(n);
        return same;
    };
    for (const auto& each : pool.starmap(work, std::vector(10, std::tuple(counter, 1)))) {
        CHECK(each == counter);
    }
    CHECK(counter.call<&Counter::total>() == 121);
    CHECK(manager.number_of_objects() == 1);
}

TEST_CASE("an object lives while a proxy of it is under way", "[managers]") {
    const auto manager = mp::Manager();
    const mp::Event ended;
    const mp::Queue<Proxy<Witness>> queue;
    queue.put(manager.create<Witness>(ended));  // and here is none any more
    CHECK_FALSE(ended.is_set());
    {
        const Proxy<Witness> arrived = queue.get(20);
        CHECK(arrived.call<&Witness::answer>() == 42);
        CHECK_FALSE(ended.is_set());
    }
    CHECK(ended.is_set());
    // As bytes, which may be read as often as one likes while somebody has the object.
    const auto list = manager.list<int>({1});
    const mp::bytes written = mp::pickle::dumps(list);
    CHECK(mp::pickle::loads<ListProxy<int>>(written) == list);
    CHECK(mp::pickle::loads<ListProxy<int>>(written).copy() == std::vector{1});
}

TEST_CASE("a forked child has its parent's proxies, whatever becomes of them there",
          "[managers][fork]") {
    const auto manager = mp::Manager();
    const mp::Event ended;
    const mp::Event go;
    const mp::Queue<int> answers;
    std::optional<mp::Process> child;
    {
        const auto witness = manager.create<Witness>(ended);
        child.emplace([witness, go, answers] {
            if (!go.wait(20)) mp::exit(3);
            answers.put(witness.call<&Witness::answer>());
            const mp::Process grandchild(
                [witness, answers] { answers.put(witness.call<&Witness::answer>()); });
            grandchild.start();
            mp::exit(support::ended(grandchild));
        });
        child->start();  // which ends what the parent has for it
    }
    CHECK(manager.number_of_objects() == 1);  // the child's
    go.set();
    CHECK(answers.get(20) == 42);
    CHECK(answers.get(20) == 42);
    CHECK(support::ended(*child) == 0);
    CHECK(ended.wait(20));
    CHECK(manager.number_of_objects() == 0);
}

TEST_CASE("a child that somebody else has forked uses the proxies that it finds",
          "[managers][fork]") {
    const auto manager = mp::Manager();
    const auto counter = manager.create<Counter>();
    counter.call<&Counter::add>(1);
    support::Child child([&] { return counter.call<&Counter::add>(1) == 2; });
    CHECK(child.wait() == 0);
    CHECK(counter.call<&Counter::add>(1) == 3);
}

TEST_CASE("managed objects use each other and themselves", "[managers]") {
    const auto manager = mp::Manager();
    const auto list = manager.list<int>({1, 2, 3});
    const auto summing = manager.create<Summing>(list);
    CHECK(summing.call<&Summing::sum>() == 6);
    CHECK(summing.call<&Summing::sum>() == 12);
    CHECK(list.copy() == std::vector{1, 2, 3, 6, 12});
    CHECK(list.apply(0, [](int& n, const ListProxy<int>& same) { return n += same[1]; }, list) == 3);
    const auto selfish = manager.create<Selfish>();
    selfish.call<&Selfish::know>(selfish);
    CHECK(selfish.call<&Selfish::dive>(5) == 6);
    selfish.call<&Selfish::forget>();
    // With handles of what processes share, there and back.
    const mp::Event event;
    const auto events = manager.list<mp::Event>();
    const auto keeper = manager.create<Keeper>(events);
    keeper.call<&Keeper::keep>(event);
    keeper.call<&Keeper::set_first>();
    CHECK(event.is_set());
}

TEST_CASE("threads call at the same time, each with a connection to itself", "[managers]") {
    const auto manager = mp::Manager();
    const auto list = manager.list<int>();
    const auto queue = manager.Queue<int>();
    std::thread waiting([&] { list.append(queue.get()); });
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&, i] {
            for (int j = 0; j < 50; ++j) list.append(i);
        });
    }
    for (std::thread& each : threads) each.join();
    CHECK(list.size() == 200);  // nobody waited for who waits
    queue.put(7);
    waiting.join();
    CHECK(list[-1] == 7);
}
