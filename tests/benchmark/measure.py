# SPDX-License-Identifier: BSL-1.0
#
# What measure.hpp is to the C++ programs: a figure as one line, `name who value unit`, and as many
# repetitions as make a figure.
import os
import sys
import time


def timed(run):
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def show(name, value, unit, who="cpython"):
    print(name, who, f"{value:.6g}", unit, sep="\t", flush=True)


def measure(run, first, least, step=1):
    """The count and the seconds of a call of `run(count)`, which returns seconds, that took `least`
    or more, after shorter ones that find out how many that are."""
    count = first
    while True:
        taken = run(count)
        if taken >= least:
            return count, taken
        more = min(max(1.25 * least / max(taken, 1e-9), 1.5), 20)
        count = (int(count * more) // step + 1) * step


def rate(name, unit, scale, run, first, least=0.4, step=1, who="cpython"):
    count, taken = measure(run, first, least, step)
    show(name, count / taken * scale, unit, who)


def microseconds(name, run, first, least=0.4, who="cpython"):
    count, taken = measure(run, first, least)
    show(name, taken / count * 1e6, "µs", who)


def nanoseconds(name, run, first, least=0.4):
    count, taken = measure(run, first, least)
    show(name, taken / count * 1e9, "ns")


def on_one_core(run):
    """Runs it with this process, and those that it starts, bound to one core."""
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    run()
    os.sched_setaffinity(0, processors)


def main(subjects):
    """Runs the subject that is named in the command line, or all."""
    for name, run in subjects.items():
        if sys.argv[1:] in ([], [name]):
            run(name)
