# SPDX-License-Identifier: BSL-1.0
#
# The subjects of ranks.cpp in mpi4py.futures. Run as
# `mpiexec -n N python3 -m mpi4py.futures ranks.py SUBJECT`.
import array
import functools
import time

from mpi4py.futures import MPIPoolExecutor

import measure


def square(x):
    return x * x


def ends(array_or_bytes):
    return array_or_bytes[0] + array_or_bytes[-1]


def element(state, i):
    return state[i * 7919 % len(state)]


def compute(milliseconds):
    end = time.thread_time() + milliseconds / 1000
    while time.thread_time() < end:
        pass
    return milliseconds


def with_executor(run):
    with MPIPoolExecutor() as executor:
        list(executor.map(square, range(1000)))
        run(executor)


def rate_of_squares(name, executor, first, chunksize, who):
    measure.rate(
        name, "k/s", 1e-3,
        lambda count: measure.timed(lambda: list(executor.map(square, range(count), chunksize=chunksize))),
        first, who=who)


def tiny(name):
    with_executor(lambda executor: rate_of_squares(name, executor, 500, 1, "mpi4py"))


def tiny_in_chunks(name):
    def run(executor):
        rate_of_squares(name, executor, 500, 1, "mpi4py")
        rate_of_squares(name, executor, 10_000, 100, "mpi4py, chunks")
    with_executor(run)


def apply(name):
    with_executor(lambda executor: measure.microseconds(
        name,
        lambda count: measure.timed(lambda: [executor.submit(square, 7).result() for _ in range(count)]),
        200, who="mpi4py"))


def large_arguments(name):
    count_of_them = 64
    arrays = [array.array("d", range(i, i + (1 << 17))) for i in range(count_of_them)]

    def run(executor):
        for items, who in (arrays, "mpi4py"), ([bytes(each) for each in arrays], "mpi4py, bytes"):
            def run_once(count):
                for _ in range(0, count, count_of_them):
                    list(executor.map(ends, items))
            measure.rate(name, "GB/s", (1 << 20) / 1e9, lambda count: measure.timed(lambda: run_once(count)),
                         count_of_them, step=count_of_them, who=who)
    with_executor(run)


def large_state(name):
    state = array.array("d", [1]) * (1 << 21)

    def run(executor):
        for chunksize, who in (1, "mpi4py"), (67, "mpi4py, chunks"):
            def run_once(count):
                for _ in range(0, count, 200):
                    state[0] += 1
                    list(executor.map(functools.partial(element, state), range(200), chunksize=chunksize))
            measure.rate(name, "k/s", 1e-3, lambda count: measure.timed(lambda: run_once(count)), 200, step=200,
                         who=who)
    with_executor(run)


def balance(name):
    items = [1] * 64
    items[16] = 40

    def run(executor):
        count, taken = measure.measure(
            lambda count: measure.timed(lambda: [list(executor.map(compute, items)) for _ in range(count)]),
            1, 0.4)
        measure.show(name, taken / count * 1e3, "ms", "mpi4py")
    with_executor(run)


if __name__ == "__main__":
    measure.main({
        "ranks, tiny tasks": tiny,
        "ranks, tiny tasks in chunks": tiny_in_chunks,
        "ranks, tiny tasks, 3 workers": tiny,
        "ranks, apply round trip": apply,
        "ranks, 1 MiB arguments": large_arguments,
        "ranks, 16 MiB of state": large_state,
        "ranks, hybrid, tiny tasks": tiny,
        "ranks, balance": balance,
    })
