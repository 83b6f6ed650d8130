// SPDX-License-Identifier: BSL-1.0
//
// fault_points FOLDER [WORKLOAD]: at each fault point that a workload comes by, a process is killed,
// alone and among others that put and get. The others go on, and nothing is lost but what it held.
// Where the next one comes by a point that only a death leads to, that one is killed there too. In the
// end every fault point that the headers in FOLDER name must have been the death of somebody.
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/queues.hpp>

#include "chaos/items.hpp"
#include "chaos/record.hpp"
#include "chaos/trap.hpp"
#include "chaos/workloads.hpp"
#include "shm/helpers.hpp"
#include "support/guard.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#ifndef MULTIPROCESSING_FAULT_INJECTION
#error "without MULTIPROCESSING_FAULT_INJECTION there are no fault points"
#endif

namespace {

using namespace chaos;
using support::Child;

/// What a case does to whom.
struct Case {
    Trap victim;
    Trap heir;
    bool traffic = false;
    std::uint32_t times = 1;  // so many victims and heirs, one pair after the other

    [[nodiscard]] std::string text() const {
        const auto of = [](const Trap& trap) {
            return "at '" + trap.place + "', pass " + std::to_string(trap.pass);
        };
        if (victim.place.empty()) return "nobody killed";
        return "killed " + of(victim) + (heir.place.empty() ? "" : ", and the next " + of(heir)) +
               (traffic ? ", among others" : "") +
               (times > 1 ? ", " + std::to_string(times) + " times" : "");
    }
};

/// What came of it.
struct Outcome {
    bool victim_killed = false;
    bool heir_killed = false;
    std::map<std::string, std::uint64_t> victim_came_by;
    std::map<std::string, std::uint64_t> heir_came_by;
    std::chrono::milliseconds took{0};  // from the death to the end of everybody's work
    std::vector<std::string> errors;
};

/// Who has which life, and the next one: an Actor has two.
enum : std::uint32_t {
    first_life = 0,
    producer_life = 2,
    consumer_life = 4,
    other_consumer_life = 6,
    victim_life = 8,  // of the first pair
    heir_life = 10,
    lives_of_a_pair = 4
};
inline constexpr std::uint32_t most_times = 8;
/// So long others can come to stand before what the victim holds when it is killed among them.
inline constexpr std::chrono::microseconds linger{500};
inline constexpr std::uint32_t most_lives = victim_life + most_times * lives_of_a_pair;

/// One case from the making of a queue to its end.
template <class T>
class Scene {
public:
    Scene(const Workload<T>& workload, const SharedRecord& record, const SharedTrail& trails,
          support::Stage& deaths)
        : workload_(workload), record_(record[0]), trails_(trails), deaths_(deaths),
          queue_(workload.maxsize) {}

    Outcome run(const Case& the_case);

private:
    template <class Script>
    [[nodiscard]] std::unique_ptr<Child> start(std::uint32_t life, Script script) {
        record_.lives[life].role = Role::producer;
        record_.lives[life + 1].role = Role::consumer;
        return std::make_unique<Child>([this, life, script] {
            Actor<T> me(queue_, record_, life);
            try {
                script(me);
            } catch (const mp::ShutDown&) {
            }
        });
    }
    void note_end(std::uint32_t life, int code, const std::string& name, bool may_be_killed = false) {
        const End end = code == 0 ? End::in_order : End::killed;
        record_.lives[life].end = record_.lives[life + 1].end = end;
        if (code == 0 || (may_be_killed && code == -SIGKILL)) return;
        outcome_.errors.push_back(
            name + (code == 1000 ? " hangs" : " ended with " + std::to_string(code)));
    }
    static void watched(Actor<T>& actor, Trail& trail, const Trap& trap,
                        typename Workload<T>::Script script) {
        const Watched watch(trail, trap);
        script(actor);
    }

    const Workload<T>& workload_;
    Record& record_;
    const SharedTrail& trails_;
    support::Stage& deaths_;
    mp::JoinableQueue<T> queue_;
    Outcome outcome_;
};

template <class T>
Outcome Scene<T>::run(const Case& the_case) {
    using Clock = std::chrono::steady_clock;
    // Not so greedy that nobody else gets a turn.
    const auto put_on = [](Actor<T>& me) {
        for (int count = 0; count < 30 || !me.stopped(); ++count) {
            if (me.queue().qsize() < 100) me.put();
            std::this_thread::sleep_for(10us);
        }
    };
    const auto get_all = [](Actor<T>& me) {
        for (;;) {
            me.get();
            std::this_thread::sleep_for(10us);
        }
    };
    record_.lives[first_life].role = Role::producer;
    record_.lives[first_life + 1].role = Role::consumer;
    Actor<T> first(queue_, record_, first_life);
    first.put(workload_.before);
    first.get(workload_.before);
    first.put(workload_.there);

    std::unique_ptr<Child> producer;
    std::unique_ptr<Child> consumers[2];
    const auto start_others = [&] {
        producer = start(producer_life, put_on);
        consumers[0] = start(consumer_life, get_all);
        consumers[1] = start(other_consumer_life, get_all);
    };
    if (the_case.traffic) start_others();

    // Nobody killed is reaped before the others are through.
    std::vector<std::unique_ptr<Child>> pairs;
    auto death = Clock::now();
    for (std::uint32_t time = 0; time < the_case.times; ++time) {
        if (time != 0) first.put(workload_.there);
        // Started before the death, so that it is the heir who comes upon what that has left behind.
        pairs.push_back(start(heir_life + time * lives_of_a_pair, [&](Actor<T>& me) {
            deaths_.await(time + 1);
            watched(me, trails_[1], the_case.heir, [](Actor<T>& one) {
                one.try_get();
                one.put();
                one.try_get();
            });
        }));
        pairs.push_back(start(victim_life + time * lives_of_a_pair, [&](Actor<T>& me) {
            watched(me, trails_[0], the_case.victim, workload_.script);
        }));
        const int victim_end = pairs.back()->end();
        death = Clock::now();
        deaths_.add();
        const int heir_end = (pairs.end() - 2)->get()->end();
        outcome_.victim_killed = victim_end == -SIGKILL;
        outcome_.heir_killed = heir_end == -SIGKILL;
        note_end(victim_life + time * lives_of_a_pair, victim_end, "the victim", true);
        note_end(heir_life + time * lives_of_a_pair, heir_end, "the heir", true);
    }
    store(record_.stop, std::uint64_t{1});
    if (!the_case.traffic) start_others();
    note_end(producer_life, producer->wait(), "the producer");
    queue_.shutdown();
    note_end(consumer_life, consumers[0]->wait(), "a consumer");
    note_end(other_consumer_life, consumers[1]->wait(), "the other consumer");
    outcome_.took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - death);

    for (const auto& child : pairs) child->wait();
    outcome_.victim_came_by = trails_[0].counts();
    outcome_.heir_came_by = trails_[1].counts();
    if (queue_.qsize() != 0) outcome_.errors.push_back("the queue is not empty");
    const Balance sum = balance(record_, workload_.kind == Workload<T>::shuts_down);
    outcome_.errors.insert(outcome_.errors.end(), sum.errors.begin(), sum.errors.end());
    return outcome_;
}

/// What is known of all workloads so far.
struct Chronicle {
    std::map<std::string, std::uint64_t> deaths;     // at each place
    std::set<std::string> without_deaths;            // places that are come by when nobody is killed
    std::chrono::milliseconds longest{0};
    std::uint64_t cases = 0;
    bool well = true;
};

class Director {
public:
    Director(Chronicle& chronicle, support::Guard& guard) : chronicle_(chronicle), guard_(guard) {}

    template <class T>
    void discover(const Workload<T>& workload) {
        const Outcome outcome = play(workload, {{}, {}, workload.kind == Workload<T>::needs_others});
        found_[workload.name] = outcome.victim_came_by;
        for (const auto* places : {&outcome.victim_came_by, &outcome.heir_came_by}) {
            for (const auto& [place, count] : *places) chronicle_.without_deaths.insert(place);
        }
    }
    template <class T>
    void kill_everywhere(const Workload<T>& workload);

private:
    template <class T>
    Outcome play(const Workload<T>& workload, const Case& the_case);

    Chronicle& chronicle_;
    support::Guard& guard_;
    SharedRecord record_{1};
    SharedTrail trails_{2};
    std::map<std::string, std::map<std::string, std::uint64_t>> found_;
};

template <class T>
Outcome Director::play(const Workload<T>& workload, const Case& the_case) {
    clear(record_[0], most_lives);
    for (Trail& trail : trails_) trail.length = 0;
    guard_.begin(std::string(workload.name) + ": " + the_case.text());
    const auto deaths = support::make_stage();
    const support::NoLeak memory;
    Outcome outcome;
    {
        Scene<T> scene(workload, record_, trails_, *deaths);
        outcome = scene.run(the_case);
        if (const auto bytes = memory.leaked(); bytes > most_memory_of_a_drained_queue) {
            outcome.errors.push_back(std::to_string(bytes) + " bytes are in use when it is drained");
        }
    }
    if (const auto bytes = memory.leaked(); bytes != 0) {
        outcome.errors.push_back(std::to_string(bytes) + " bytes are in use when it is gone");
    }
    guard_.end();
    ++chronicle_.cases;
    if (outcome.victim_killed) ++chronicle_.deaths[the_case.victim.place];
    if (outcome.heir_killed) ++chronicle_.deaths[the_case.heir.place];
    chronicle_.longest = std::max(chronicle_.longest, outcome.took);
    if (!outcome.errors.empty()) {
        chronicle_.well = false;
        std::cout << "FAIL " << workload.name << ": " << the_case.text() << '\n';
        for (const std::string& error : outcome.errors) std::cout << "     " << error << '\n';
        std::cout << std::flush;
    }
    return outcome;
}

template <class T>
void Director::kill_everywhere(const Workload<T>& workload) {
    using Kind = Workload<T>;
    for (const auto& [place, count] : found_[workload.name]) {
        for (const std::uint64_t pass : std::set<std::uint64_t>{1, 2, count}) {
            if (pass > count) break;
            play(workload, {{place, pass, linger}, {}, true});
            if (workload.kind == Kind::needs_others) continue;
            // A segment that a death leaves in use is too little to tell; eight are not.
            const std::uint32_t times = pass == 1 && workload.before != 0 ? most_times : 1;
            const Outcome outcome = play(workload, {{place, pass}, {}, false, times});
            if (!outcome.victim_killed) continue;
            for (const auto& [next, passes] : outcome.heir_came_by) {
                if (chronicle_.without_deaths.contains(next)) continue;
                play(workload, {{place, pass}, {next, 1}, false});
            }
        }
    }
}

/// The fault points that headers name.
std::set<std::string> named_in(const std::filesystem::path& folder) {
    std::set<std::string> names;
    const std::regex point("MULTIPROCESSING_FAULT_POINT\\(\"([^\"]*)\"\\)");
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
        if (entry.path().extension() != ".hpp") continue;
        std::ifstream file(entry.path());
        const std::string text(std::istreambuf_iterator<char>(file), {});
        for (std::sregex_iterator match(text.begin(), text.end(), point), end; match != end; ++match) {
            names.insert((*match)[1]);
        }
    }
    return names;
}

}  // namespace

int main(int argc, char* argv[]) {
    if (argc < 2) {
        std::cerr << "fault_points FOLDER_OF_HEADERS [WORKLOAD]\n";
        return 2;
    }
    const auto points = named_in(argv[1]);
    const std::string_view only = argc > 2 ? argv[2] : "";
    support::warm_up();
    support::Guard guard;
    Chronicle chronicle;
    Director director(chronicle, guard);
    for_each_workload([&](const auto& workload) { director.discover(workload); });
    for_each_workload([&](const auto& workload) {
        if (only.empty() || workload.name == only) director.kill_everywhere(workload);
    });
    bool well = chronicle.well && guard.satisfied();
    for (const std::string& point : points) {
        const auto deaths = chronicle.deaths[point];
        std::cout << deaths << " killed at '" << point << "'\n";
        if (deaths == 0 && only.empty()) {
            std::cout << "FAIL nobody came by there: it needs a workload of its own, or is there in vain\n";
            well = false;
        }
    }
    if (points.empty()) {
        std::cout << "FAIL there are no fault points in the headers in " << argv[1] << '\n';
        well = false;
    }
    std::cout << chronicle.cases << " cases; after a death all were through within "
              << chronicle.longest.count() << " ms" << std::endl;
    return well ? 0 : 1;
}
