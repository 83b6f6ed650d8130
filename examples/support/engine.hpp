// SPDX-License-Identifier: BSL-1.0
//
// Whose Pool a job uses: that of this machine's processes or, with EXAMPLE_MPI defined, that of the
// ranks of MPI. Nothing else of a job is different.
#pragma once

#include <multiprocessing.hpp>
#ifdef EXAMPLE_MPI
#include <multiprocessing/mpi.hpp>
#endif

#include <string>

namespace mp = multiprocessing;

/// Those who work for a Pool.
struct Crew {
    Crew() = default;
    Crew(int number, const std::string& one, const std::string& many)
        : size(number), name(std::to_string(number) + ' ' + (number == 1 ? one : many)) {}

    int size = 0;
    std::string name;  // "3 processes"
};

#ifdef EXAMPLE_MPI

using Pool = mp::mpi::Pool;

inline void freeze_support(int& argc, char**& argv) { mp::mpi::freeze_support(argc, argv); }

/// How many there are for a Pool that may have them all.
inline int all_workers() {
    const int others = boost::mpi::communicator().size() - 1;
    return others == 0 ? mp::process_cpu_count() : others;
}

inline Crew crew_of(const Pool& pool) {
    const auto ranks = pool.ranks();
    // Without other ranks it is one of processes.
    if (ranks.front().rank < 0) return {ranks.front().processes, "process", "processes"};
    return {static_cast<int>(ranks.size()), "rank", "ranks"};
}

#else

using Pool = mp::Pool;

inline void freeze_support(int& /*argc*/, char**& /*argv*/) { mp::freeze_support(); }

/// How many there are for a Pool that may have them all.
inline int all_workers() { return mp::process_cpu_count(); }

inline Crew crew_of(const Pool& pool) {
    return {static_cast<int>(pool.workers().size()), "process", "processes"};
}

#endif
