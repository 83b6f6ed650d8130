# SPDX-License-Identifier: BSL-1.0
#
# The subjects of synchronize.cpp in CPython, as somebody who uses multiprocessing would write them.
import multiprocessing as mp
import os
import statistics
import time

import measure


def on_a_processor(which, target, *args):
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processors[which % len(processors)]})
    target(*args)


# Locks ----------------------------------------------------------------------------------------------

def pairs(lock, count):
    for _ in range(count):
        lock.acquire()
        lock.release()


def alone(make):
    def run(name):
        lock = make()
        measure.nanoseconds(name, lambda count: measure.timed(lambda: pairs(lock, count)), 100_000)

    return run


def by_two(target, shared, count):
    processes = [mp.Process(target=on_a_processor, args=(i, target, shared, count // 2)) for i in range(2)]

    def run():
        for process in processes:
            process.start()
        for process in processes:
            process.join()

    return measure.timed(run)


def lock_by_two(name):
    measure.rate(name, "M/s", 1e-6, lambda count: by_two(pairs, mp.Lock(), count), 200_000, step=2)


def additions(value, count):
    for _ in range(count):
        with value.get_lock():
            value.value += 1


def addition_by_two(name):
    measure.rate(name, "M/s", 1e-6, lambda count: by_two(additions, mp.Value("i", 0), count), 50_000, step=2)


# Wake-ups -------------------------------------------------------------------------------------------

WAKE_UPS = 300


def wake_up(name, waiter, shared, wake):
    sent, took = mp.RawValue("q", 0), mp.RawValue("q", 0)
    process = mp.Process(target=on_a_processor, args=(1, waiter, shared, sent, took))
    process.start()
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    ways = []
    for i in range(WAKE_UPS):
        time.sleep(1e-3)
        wake(i, sent)
        while took.value == 0:
            time.sleep(1e-4)
        ways.append(took.value)
        took.value = 0
    process.join()
    os.sched_setaffinity(0, processors)
    measure.show(name, statistics.median(ways) * 1e-3, "µs")


def wait_for_event(event, sent, took):
    for _ in range(WAKE_UPS):
        event.wait()
        way = time.monotonic_ns() - sent.value
        event.clear()
        took.value = way


def event_wake_up(name):
    event = mp.Event()

    def wake(_, sent):
        sent.value = time.monotonic_ns()
        event.set()

    wake_up(name, wait_for_event, event, wake)


def wait_for_condition(shared, sent, took):
    condition, told = shared
    for i in range(WAKE_UPS):
        with condition:
            while told.value <= i:
                condition.wait()
        took.value = time.monotonic_ns() - sent.value


def condition_wake_up(name):
    condition, told = mp.Condition(), mp.RawValue("i", 0)

    def wake(i, sent):
        with condition:
            told.value = i + 1
            sent.value = time.monotonic_ns()
            condition.notify()

    wake_up(name, wait_for_condition, (condition, told), wake)


def on_one_core(subject):
    return lambda name: measure.on_one_core(lambda: subject(name))


# Barriers -------------------------------------------------------------------------------------------

def pass_barrier(barrier, count):
    for _ in range(count):
        barrier.wait()


def barrier_of_two(name):
    measure.rate(name, "k/s", 1e-3, lambda count: by_two(pass_barrier, mp.Barrier(2), 2 * count), 1000)


# Memory ---------------------------------------------------------------------------------------------

def footprint():
    # With what is of files, for a semaphore is one where /dev/shm is no tmpfs.
    with open("/proc/self/smaps_rollup") as smaps:
        resident = next(int(line.split()[1]) * 1024 for line in smaps if line.startswith("Pss:"))
    return resident + 1000 * len(os.listdir("/proc/self/fd"))


def memory_of_a_lock(name):
    count, locks = 10_000, [mp.Lock()]
    before = footprint()
    locks.extend(mp.Lock() for _ in range(count))
    for lock in locks:
        with lock:
            pass
    measure.show(name, (footprint() - before) / count, "bytes")


if __name__ == "__main__":
    measure.main({
        "lock and unlock, alone": alone(mp.Lock),
        "recursive lock and unlock, alone": alone(mp.RLock),
        "lock and unlock, two processes": lock_by_two,
        "value += 1 under its lock, two processes": addition_by_two,
        "event wake-up": event_wake_up,
        "event wake-up, on one core": on_one_core(event_wake_up),
        "condition wake-up": condition_wake_up,
        "condition wake-up, on one core": on_one_core(condition_wake_up),
        "barrier of two": barrier_of_two,
        "semaphore, alone": alone(lambda: mp.Semaphore(1)),
        "bounded semaphore, alone": alone(lambda: mp.BoundedSemaphore(1)),
        "memory of a lock": memory_of_a_lock,
    })
