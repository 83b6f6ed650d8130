# SPDX-License-Identifier: BSL-1.0
#
# The subjects of subjects.cpp in CPython.
import multiprocessing as mp

import measure


def square(x):
    return x * x


def pool_map(name):
    items = 1_000_000
    numbers = list(range(items))
    with mp.Pool(2) as pool:
        pool.map(square, range(1000))
        measure.show(name, items / measure.timed(lambda: pool.map(square, numbers)) / 1e6, "M/s")


def pool_apply(name):
    calls = 1000
    with mp.Pool(2) as pool:
        pool.map(square, range(1000))
        taken = measure.timed(lambda: [pool.apply(square, (i,)) for i in range(calls)])
        measure.show(name, taken / calls * 1e6, "µs")


def pool_imap(name):
    items = 20_000
    with mp.Pool(2) as pool:
        pool.map(square, range(1000))
        taken = measure.timed(lambda: sum(1 for _ in pool.imap_unordered(square, range(items))))
        measure.show(name, items / taken / 1e3, "k/s")


if __name__ == "__main__":
    measure.main({
        "pool.map of 10^6 squares": pool_map,
        "pool.apply round trip": pool_apply,
        "pool.imap_unordered, chunks of 1": pool_imap,
    })
