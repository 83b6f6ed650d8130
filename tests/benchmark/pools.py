# SPDX-License-Identifier: BSL-1.0
#
# The subjects of pools.cpp in CPython.
import array
import concurrent.futures
import multiprocessing as mp

import measure


def square(x):
    return x * x


def make_array(value):
    return array.array("d", [value]) * (1 << 17)


def take_all(results):
    for _ in results:
        pass


def with_pool(run):
    with mp.Pool(2) as pool:
        pool.map(square, range(1000))
        run(pool)


def map_of_squares(name):
    items = 1_000_000
    numbers = list(range(items))
    with_pool(lambda pool: measure.show(
        name, items / measure.timed(lambda: pool.map(square, numbers)) / 1e6, "M/s"))


def imap_unordered(name):
    with_pool(lambda pool: measure.rate(
        name, "M/s", 1e-6,
        lambda count: measure.timed(lambda: take_all(pool.imap_unordered(square, range(count)))), 5_000))


def imap(name):
    with_pool(lambda pool: measure.rate(
        name, "M/s", 1e-6,
        lambda count: measure.timed(lambda: take_all(pool.imap(square, range(count)))), 5_000))


def apply(name):
    with_pool(lambda pool: measure.microseconds(
        name, lambda count: measure.timed(lambda: [pool.apply(square, (i,)) for i in range(count)]), 500))


def start_close_join(name):
    def run(count):
        for _ in range(count):
            pool = mp.Pool(2)
            pool.close()
            pool.join()
    measure.microseconds(name, lambda count: measure.timed(lambda: run(count)), 10)


def large_results(name):
    with_pool(lambda pool: measure.rate(
        name, "GB/s", (1 << 20) / 1e9,
        lambda count: measure.timed(lambda: take_all(pool.imap_unordered(make_array, range(count)))), 20))


def submit(name):
    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        executor.submit(square, 1).result()

        def run(count):
            for future in [executor.submit(square, 7) for _ in range(count)]:
                future.result()
        measure.rate(name, "k/s", 1e-3, lambda count: measure.timed(lambda: run(count)), 500)


def submit_round_trip(name):
    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        executor.submit(square, 1).result()
        measure.microseconds(
            name,
            lambda count: measure.timed(
                lambda: [executor.submit(square, 7).result() for _ in range(count)]), 200)


if __name__ == "__main__":
    measure.main({
        "pool.map of 10^6 squares": map_of_squares,
        "pool.imap_unordered, chunks of 1": imap_unordered,
        "pool.imap, chunks of 1": imap,
        "pool.apply round trip": apply,
        "pool start, close, join": start_close_join,
        "pool, 1 MiB results": large_results,
        "executor.submit, many": submit,
        "executor.submit and result": submit_round_trip,
    })
