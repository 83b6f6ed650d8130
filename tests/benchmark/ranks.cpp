// SPDX-License-Identifier: BSL-1.0
//
// The pool over ranks beside a master and workers that are written by hand with MPI, and the bare limit.
// Run as `mpiexec -n N benchmark_ranks SUBJECT`, or with `bare` after the subject for what is not ours;
// `--list` prints the subjects, `--ranks SUBJECT` that N, and `--distance SUBJECT` how far apart the
// processors are, which a rank that is bound to one cannot tell. The same in mpi4py.futures is in ranks.py.
#include <multiprocessing.hpp>
#include <multiprocessing/mpi.hpp>

#include "measure.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <iterator>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <boost/mpi/communicator.hpp>
#include <mpi.h>
#include <time.h>

namespace mp = multiprocessing;

namespace {

using benchmark::measure;
using benchmark::microseconds;
using benchmark::rate;
using benchmark::seconds;
using benchmark::Unit;

// What the tasks are.

int square(int x) { return x * x; }

constexpr std::size_t mebibyte = std::size_t{1} << 20;
constexpr std::size_t array_size = mebibyte / sizeof(double);
constexpr int array_count = 64;

double ends_of(const double* array) { return array[0] + array[array_size - 1]; }
double ends(const std::vector<double>& array) { return ends_of(array.data()); }

std::vector<std::vector<double>> make_arrays() {
    std::vector<std::vector<double>> arrays;
    for (int i = 0; i < array_count; ++i) {
        arrays.emplace_back(array_size);
        std::iota(arrays.back().begin(), arrays.back().end(), i);
    }
    return arrays;
}

constexpr std::size_t state_size = 16 * array_size;
constexpr int state_tasks = 200;

double element(const std::vector<double>& state, int i) {
    return state[static_cast<std::size_t>(i) * 7919 % state.size()];
}

// Computes for so many milliseconds of the processor's time: who has to share it is done later.
int compute(int milliseconds) {
    const auto now = [] {
        ::timespec time{};
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) * 1e-6;
    };
    const double end = now() + milliseconds;
    while (now() < end) {}
    return milliseconds;
}

// One long task, which is begun while there is enough to do for the others meanwhile.
std::vector<int> unequal() {
    std::vector<int> all(64, 1);
    all[16] = 40;
    return all;
}

Unit milliseconds() { return {"ms", 1e3, true}; }
Unit tasks() { return rate("k/s", 1e-3); }
Unit arrays_of_mebibyte() { return rate("GB/s", mebibyte / 1e9); }

void show(const std::string& name, const std::string& who, const Unit& unit, long first,
          const std::function<double(long)>& run, long step = 1, double least = 0.3) {
    benchmark::print(name, who, measure({who, run}, unit, first, step, least), unit.name);
}

// Ours.

double map_squares(const mp::mpi::Pool& pool, long count, int chunksize) {
    return seconds(
        [&] { static_cast<void>(pool.map(square, mp::range(static_cast<int>(count)), chunksize)); });
}

// One that has done something: what is measured is not its start.
mp::mpi::Pool warm_pool(mp::mpi::PoolOptions options = {}) {
    const mp::mpi::Pool pool(std::move(options));
    static_cast<void>(map_squares(pool, 1000, 1));
    return pool;
}

void tiny(const std::string& name) {
    const mp::mpi::Pool pool = warm_pool();
    show(name, "ours", tasks(), 10'000, [&](long count) { return map_squares(pool, count, 1); });
}

void tiny_in_chunks(const std::string& name) {
    const mp::mpi::Pool pool = warm_pool();
    show(name, "ours", tasks(), 100'000, [&](long count) { return map_squares(pool, count, 0); });
}

void apply(const std::string& name) {
    const mp::mpi::Pool pool = warm_pool();
    show(name, "ours", microseconds(), 1000, [&](long count) {
        return seconds([&] {
            for (long i = 0; i < count; ++i) static_cast<void>(pool.apply(square, static_cast<int>(i)));
        });
    });
}

void large_arguments(const std::string& name) {
    const mp::mpi::Pool pool = warm_pool();
    const auto arrays = make_arrays();
    static_cast<void>(pool.map(ends, arrays, 1));
    const auto run = [&](long count) {
        return seconds([&] {
            for (long i = 0; i < count; i += array_count) static_cast<void>(pool.map(ends, arrays, 1));
        });
    };
    show(name, "ours", arrays_of_mebibyte(), array_count, run, array_count);
}

void large_state(const std::string& name) {
    const mp::mpi::Pool pool = warm_pool();
    std::vector<double> state(state_size, 1);
    const auto run = [&](long count) {
        return seconds([&] {
            for (long i = 0; i < count; i += state_tasks) {
                state[0] += 1;  // another one each time
                static_cast<void>(pool.map(mp::partial(element, state), mp::range(state_tasks), 1));
            }
        });
    };
    show(name, "ours", tasks(), state_tasks, run, state_tasks, 1.0);
}

void hybrid(const std::string& name) {
    mp::mpi::PoolOptions options;
    options.hybrid = true;
    options.processes_per_node = 2;
    const mp::mpi::Pool pool = warm_pool(std::move(options));
    show(name, "ours", tasks(), 10'000, [&](long count) { return map_squares(pool, count, 1); });
}

void balance(const std::string& name) {
    const mp::mpi::Pool pool = warm_pool();
    const std::vector<int> items = unequal();
    show(name, "ours", milliseconds(), 1, [&](long count) {
        return seconds([&] {
            for (long i = 0; i < count; ++i) static_cast<void>(pool.map(compute, items));
        });
    });
}

// By hand: a message has a few tasks of the same size, and its answer a result for each. A worker has one
// message at a time, and blocks in MPI_Recv for the next.

enum Tag : int {
    work,
    unanswered,
    state_comes,  // by MPI_Bcast
    end
};

std::vector<double> bare_state;

void send(const void* data, std::size_t size, int to, Tag tag) {
    MPI_Send(data, static_cast<int>(size), MPI_BYTE, to, tag, MPI_COMM_WORLD);
}

void broadcast_state() {
    MPI_Bcast(bare_state.data(), static_cast<int>(bare_state.size()), MPI_DOUBLE, 0, MPI_COMM_WORLD);
}

int worker_count() {
    int ranks = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    return ranks - 1;
}

/// Both sides of it: tasks of `elements` elements each, at most `chunk` of them in a message.
template <class In, class Out>
class ByHand {
public:
    ByHand(Out (*f)(const In*), std::size_t elements = 1, std::size_t chunk = 1)
        : f_(f), elements_(elements), chunk_(chunk) {}

    /// What a worker does.
    void serve() const {
        std::vector<In> message(elements_ * chunk_);
        std::vector<Out> results(chunk_);
        for (;;) {
            MPI_Status status;
            MPI_Recv(message.data(), static_cast<int>(message.size() * sizeof(In)), MPI_BYTE, 0, MPI_ANY_TAG,
                     MPI_COMM_WORLD, &status);
            if (status.MPI_TAG == end) return;
            if (status.MPI_TAG == state_comes) broadcast_state();
            if (status.MPI_TAG != work) continue;
            const std::size_t count = size_of(status) / sizeof(In) / elements_;
            for (std::size_t i = 0; i < count; ++i) results[i] = f_(message.data() + i * elements_);
            send(results.data(), count * sizeof(Out), 0, work);
        }
    }

    /// What the master does: gives so many tasks out, the first of each message at place(index), and
    /// takes the results in.
    template <class Place>
    std::vector<Out> map(std::size_t count, Place place) const {
        const int workers = worker_count();
        std::vector<Out> results(count);
        std::vector<Out> answer(chunk_);
        std::vector<std::size_t> given(static_cast<std::size_t>(workers) + 1);
        std::size_t next = 0;
        int waited_for = 0;
        const auto give = [&](int worker) {
            const std::size_t now = std::min(chunk_, count - next);
            if (now == 0) return;
            send(place(next), now * elements_ * sizeof(In), worker, work);
            given[static_cast<std::size_t>(worker)] = next;
            next += now;
            ++waited_for;
        };
        for (int worker = 1; worker <= workers; ++worker) give(worker);
        while (waited_for != 0) {
            MPI_Status status;
            MPI_Recv(answer.data(), static_cast<int>(chunk_ * sizeof(Out)), MPI_BYTE, MPI_ANY_SOURCE, work,
                     MPI_COMM_WORLD, &status);
            --waited_for;
            const std::size_t first = given[static_cast<std::size_t>(status.MPI_SOURCE)];
            give(status.MPI_SOURCE);
            std::copy_n(answer.begin(), size_of(status) / sizeof(Out), results.data() + first);
        }
        return results;
    }

private:
    static std::size_t size_of(const MPI_Status& status) {
        int bytes = 0;
        MPI_Get_count(&status, MPI_BYTE, &bytes);
        return static_cast<std::size_t>(bytes);
    }

    Out (*f_)(const In*);
    std::size_t elements_;
    std::size_t chunk_;
};

void end_all() {
    for (int worker = 1; worker <= worker_count(); ++worker) send(nullptr, 0, worker, end);
}

int square_of(const int* x) { return square(*x); }
int compute_of(const int* milliseconds) { return compute(*milliseconds); }
double element_of(const int* i) { return element(bare_state, *i); }

void bare_squares(const std::string& name, int rank, std::size_t chunk, long first) {
    const ByHand<int, int> pool(square_of, 1, chunk);
    if (rank != 0) return pool.serve();
    const auto run = [&](long count) {
        return seconds([&] {
            std::vector<int> numbers(static_cast<std::size_t>(count));
            std::iota(numbers.begin(), numbers.end(), 0);
            static_cast<void>(pool.map(numbers.size(), [&](std::size_t i) { return &numbers[i]; }));
        });
    };
    show(name, "by hand", tasks(), first, run);
    end_all();
}

void bare_tiny(const std::string& name, int rank) { bare_squares(name, rank, 1, 10'000); }
void bare_chunks(const std::string& name, int rank) { bare_squares(name, rank, 100, 100'000); }

void bare_apply(const std::string& name, int rank) {
    const ByHand<int, int> pool(square_of);
    if (rank != 0) return pool.serve();
    const auto run = [&](long count) {
        return seconds([&] {
            for (int i = 0; i < count; ++i) {
                send(&i, sizeof i, 1, work);
                int result = 0;
                MPI_Recv(&result, sizeof result, MPI_BYTE, 1, work, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            }
        });
    };
    show(name, "by hand", microseconds(), 1000, run);
    end_all();
}

void bare_arguments(const std::string& name, int rank) {
    const ByHand<double, double> pool(ends_of, array_size);
    if (rank != 0) return pool.serve();
    const auto arrays = make_arrays();
    const auto place = [&](std::size_t i) { return arrays[i % array_count].data(); };
    const auto by_hand = [&](long count) {
        return seconds([&] { static_cast<void>(pool.map(static_cast<std::size_t>(count), place)); });
    };
    // The last is answered: all have come then.
    const auto limit = [&](long count) {
        return seconds([&] {
            for (long i = 0; i < count; ++i) {
                send(place(static_cast<std::size_t>(i)), mebibyte, 1, i + 1 == count ? work : unanswered);
            }
            double result = 0;
            MPI_Recv(&result, sizeof result, MPI_BYTE, 1, work, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        });
    };
    show(name, "by hand", arrays_of_mebibyte(), array_count, by_hand, array_count);
    show(name, "limit", arrays_of_mebibyte(), array_count, limit, array_count);
    end_all();
}

void bare_large_state(const std::string& name, int rank) {
    const ByHand<int, double> pool(element_of);
    bare_state.resize(state_size, 1);
    if (rank != 0) return pool.serve();
    std::vector<int> numbers(state_tasks);
    std::iota(numbers.begin(), numbers.end(), 0);
    const auto run = [&](long count) {
        return seconds([&] {
            for (long i = 0; i < count; i += state_tasks) {
                bare_state[0] += 1;
                for (int worker = 1; worker <= worker_count(); ++worker) send(nullptr, 0, worker, state_comes);
                broadcast_state();
                static_cast<void>(pool.map(numbers.size(), [&](std::size_t j) { return &numbers[j]; }));
            }
        });
    };
    show(name, "by hand", tasks(), state_tasks, run, state_tasks, 1.0);
    end_all();
}

void bare_balance(const std::string& name, int rank) {
    const ByHand<int, int> pool(compute_of);
    if (rank != 0) return pool.serve();
    const std::vector<int> items = unequal();
    const auto run = [&](long count) {
        return seconds([&] {
            for (long i = 0; i < count; ++i) {
                static_cast<void>(pool.map(items.size(), [&](std::size_t j) { return &items[j]; }));
            }
        });
    };
    show(name, "by hand", milliseconds(), 1, run);
    benchmark::print(name, "ideal", std::accumulate(items.begin(), items.end(), 0.0) / worker_count(), "ms");
    end_all();
}

struct Subject {
    const char* name;
    int ranks;
    void (*ours)(const std::string& name);
    void (*bare)(const std::string& name, int rank);
};

constexpr Subject subjects[] = {
    {"ranks, tiny tasks", 2, tiny, bare_tiny},
    {"ranks, tiny tasks in chunks", 2, tiny_in_chunks, bare_chunks},
    {"ranks, tiny tasks, 3 workers", 4, tiny, bare_tiny},
    {"ranks, apply round trip", 2, apply, bare_apply},
    {"ranks, 1 MiB arguments", 2, large_arguments, bare_arguments},
    {"ranks, 16 MiB of state", 4, large_state, bare_large_state},
    {"ranks, hybrid, tiny tasks", 2, hybrid, bare_tiny},
    {"ranks, balance", 3, balance, bare_balance},
};

const Subject* find(const std::string& name) {
    const auto* found = std::find_if(std::begin(subjects), std::end(subjects),
                                     [&](const Subject& each) { return each.name == name; });
    return found == std::end(subjects) ? nullptr : found;
}

int run_bare(const Subject& subject, int argc, char* argv[]) {
    MPI_Init(&argc, &argv);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    const bool may_run = worker_count() + 1 == subject.ranks;
    if (may_run) subject.bare(subject.name, rank);
    MPI_Finalize();
    return may_run ? 0 : 2;
}

}  // namespace

int main(int argc, char* argv[]) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments == std::vector<std::string>{"--list"}) {
        for (const Subject& each : subjects) std::printf("%s\n", each.name);
        return 0;
    }
    if (arguments.size() == 2 && arguments[0] == "--ranks") {
        const Subject* const subject = find(arguments[1]);
        if (subject != nullptr) std::printf("%d\n", subject->ranks);
        return subject != nullptr ? 0 : 2;
    }
    if (arguments.size() == 2 && arguments[0] == "--distance") {
        benchmark::print(arguments[1], "distance", benchmark::core_distance(), "µs");
        return 0;
    }
    if (arguments.size() == 2 && arguments[1] == "bare") {
        const Subject* const subject = find(arguments[0]);
        return subject != nullptr ? run_bare(*subject, argc, argv) : 2;
    }
    mp::mpi::freeze_support(argc, argv);
    const Subject* const subject = arguments.empty() ? nullptr : find(arguments[0]);
    const boost::mpi::communicator world;
    if (subject == nullptr || world.size() != subject->ranks) return 2;
    subject->ours(subject->name);
}
