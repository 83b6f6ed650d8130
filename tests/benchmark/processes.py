# SPDX-License-Identifier: BSL-1.0
#
# The subjects of processes.cpp in CPython.
import multiprocessing as mp

import measure


def nothing():
    pass


def start_and_join(context, times):
    for _ in range(times):
        process = context.Process(target=nothing)
        process.start()
        process.join()


def alone(_):
    for method, times in [("fork", 50), ("spawn", 5), ("forkserver", 10)]:
        context = mp.get_context(method)
        start_and_join(context, 1)
        taken = measure.timed(lambda: start_and_join(context, times))
        measure.show(f"process, {method}", taken / times * 1e6, "µs")


if __name__ == "__main__":
    measure.main({"processes": alone})
