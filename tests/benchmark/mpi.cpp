// SPDX-License-Identifier: BSL-1.0
//
// MPI as a peer of queues: two ranks, messages from one to the other. Run as
// `mpiexec -n 2 benchmark_mpi SUBJECT`; `--list` prints those that MPI has a part in.
#include "measure.hpp"

#include <cstddef>
#include <string>
#include <vector>

// The C interface alone.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

namespace {

/// Rank 0 sends, rank 1 receives and takes the time.
double one_way(std::size_t size, long count, int rank, std::vector<char>& buffer) {
    MPI_Barrier(MPI_COMM_WORLD);
    double taken = benchmark::seconds([&] {
        for (long i = 0; i < count; ++i) {
            if (rank == 0) {
                MPI_Send(buffer.data(), static_cast<int>(size), MPI_BYTE, 1, 0, MPI_COMM_WORLD);
            } else {
                MPI_Recv(buffer.data(), static_cast<int>(size), MPI_BYTE, 0, 0, MPI_COMM_WORLD,
                         MPI_STATUS_IGNORE);
            }
        }
    });
    MPI_Bcast(&taken, 1, MPI_DOUBLE, 1, MPI_COMM_WORLD);
    return taken;
}

double there_and_back(std::size_t size, long count, int rank, std::vector<char>& buffer) {
    const auto send = [&](int to) {
        MPI_Send(buffer.data(), static_cast<int>(size), MPI_BYTE, to, 0, MPI_COMM_WORLD);
    };
    const auto receive = [&](int from) {
        MPI_Recv(buffer.data(), static_cast<int>(size), MPI_BYTE, from, 0, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    };
    MPI_Barrier(MPI_COMM_WORLD);
    double taken = benchmark::seconds([&] {
        for (long i = 0; i < count; ++i) {
            if (rank == 0) {
                send(1);
                receive(1);
            } else {
                receive(0);
                send(0);
            }
        }
    });
    MPI_Bcast(&taken, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    return taken;
}

struct Subject {
    const char* name;
    std::size_t size;
    benchmark::Unit unit;
    long first;
    double (*run)(std::size_t, long, int, std::vector<char>&);
};

}  // namespace

int main(int argc, char* argv[]) {
    const std::string wanted = argc > 1 ? argv[1] : "";
    const auto gigabytes = [](std::size_t size) {
        return benchmark::rate("GB/s", static_cast<double>(size) * 1e-9);
    };
    const Subject subjects[] = {
        {"queue of ints, 1 to 1", 8, benchmark::rate("M/s", 1e-6), 100'000, one_way},
        {"queue of 1 KiB strings", 1024, gigabytes(1024), 50'000, one_way},
        {"queue of 1 MiB arrays", 1 << 20, gigabytes(1 << 20), 100, one_way},
        {"queue of 16 MiB arrays", 1 << 24, gigabytes(1 << 24), 8, one_way},
        {"queue round trip, spinning", 8, benchmark::microseconds(), 10'000, there_and_back},
        {"pipe, send_bytes of 1 MiB", 1 << 20, gigabytes(1 << 20), 100, one_way},
        {"pipe, send_bytes of 64 MiB into a buffer", 1 << 26, gigabytes(1 << 26), 2, one_way},
    };
    if (wanted == "--list") {
        for (const Subject& subject : subjects) std::printf("%s\n", subject.name);
        return 0;
    }
    MPI_Init(&argc, &argv);
    int rank = 0;
    int ranks = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    for (const Subject& subject : subjects) {
        if (wanted != subject.name || ranks != 2) continue;
        std::vector<char> buffer(subject.size, 'x');
        const double value = benchmark::measure(
            {"mpi", [&](long n) { return subject.run(subject.size, n, rank, buffer); }},
            subject.unit, subject.first, 1, 0.3);
        if (rank == 0) benchmark::print(subject.name, "mpi", value, subject.unit.name);
    }
    MPI_Finalize();
}
