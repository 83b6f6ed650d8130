# SPDX-License-Identifier: BSL-1.0
#
# The subjects of queues.cpp in CPython, as somebody who uses multiprocessing would write them.
import array
import ctypes
import multiprocessing as mp
import os
import queue
import time

import measure


def put(there, item, count):
    for _ in range(count):
        there.put(item)


def get(there, count):
    for _ in range(count):
        there.get()


def to_here(item, count):
    there = mp.Queue()
    producer = mp.Process(target=put, args=(there, item, count))

    def run():
        producer.start()
        get(there, count)
        producer.join()

    return measure.timed(run)


def between(producers, consumers, item, count):
    there = mp.Queue()
    processes = [mp.Process(target=put, args=(there, item, count // producers)) for _ in range(producers)]
    processes += [mp.Process(target=get, args=(there, count // consumers)) for _ in range(consumers)]

    def run():
        for each in processes:
            each.start()
        for each in processes:
            each.join()

    return measure.timed(run)


def ints(name):
    measure.rate(name, "M/s", 1e-6, lambda count: to_here(7, count), 20_000)


def ints_between_four(name):
    measure.rate(name, "M/s", 1e-6, lambda count: between(2, 2, 7, count), 20_000, step=2)


def strings(name):
    text = "x" * 1024
    measure.rate(name, "GB/s", 1024e-9, lambda count: to_here(text, count), 20_000)


def arrays(size, first):
    def run(name):
        # Bytes are what CPython is fastest with, though they are no numbers.
        doubles = array.array("d", [1.5]) * (size // 8)
        for who, item in [("cpython", doubles), ("cpython, bytes", bytes(size))]:
            measure.rate(name, "GB/s", size * 1e-9, lambda count: to_here(item, count), first, who=who)

    return run


# The test that the table in faster-fifo's README is from: messages, bounds, timeouts and all.


def produce(there, count):
    i = 0
    while i < count:
        try:
            there.put((i,) * 5, timeout=0.01)
            i += 1
        except queue.Full:
            pass


def consume(there, all_put, got):
    here = 0
    while True:
        try:
            there.get(timeout=0.001)
            here += 1
        except queue.Empty:
            if all_put.value:
                break
    with got.get_lock():
        got.value += here


def fifo(producers, consumers, count):
    there = mp.Queue(100_000)
    all_put = mp.RawValue(ctypes.c_bool, False)
    got = mp.Value("l", 0)
    begin = time.perf_counter()
    all_producers = [mp.Process(target=produce, args=(there, count // producers)) for _ in range(producers)]
    all_consumers = [mp.Process(target=consume, args=(there, all_put, got)) for _ in range(consumers)]
    for each in all_producers + all_consumers:
        each.start()
    for each in all_producers:
        each.join()
    all_put.value = True
    for each in all_consumers:
        each.join()
    taken = time.perf_counter() - begin
    if got.value != count:
        raise SystemExit(f"{producers} to {consumers}: {count} messages put, {got.value} got")
    return taken


def fifo_cell(producers, consumers, count):
    count = count // producers * producers
    return lambda name: measure.show(name, count / fifo(producers, consumers, count) / 1e3, "k/s")


# Round trips.


def echo(there, back, count):
    for _ in range(count):
        back.put(there.get())


def trips(count, rest=0):
    there, back = mp.Queue(), mp.Queue()
    other = mp.Process(target=echo, args=(there, back, count))
    other.start()
    taken = 0
    for _ in range(count):
        if rest:
            time.sleep(rest)
        begin = time.perf_counter()
        there.put(7)
        back.get()
        taken += time.perf_counter() - begin
    other.join()
    return taken


def spinning(name):
    measure.microseconds(name, trips, 1000)


def asleep_on_one_core(name):
    measure.on_one_core(lambda: measure.microseconds(name, trips, 1000))


def asleep_after_a_rest(name):
    measure.microseconds(name, lambda count: trips(count, 0.001), 300, least=0)


# Sleepers.


def sleep_in_get(about_to_get, there):
    about_to_get.release()
    there.get()


def time_on_processor(pid):
    """Nanoseconds so far, of all threads of a process."""
    threads = f"/proc/{pid}/task"
    return sum(int(open(f"{threads}/{each}/schedstat").read().split()[0]) for each in os.listdir(threads))


def sleepers(name):
    count, while_measured = 50, 10
    about_to_get, there = mp.Semaphore(0), mp.Queue()
    processes = [mp.Process(target=sleep_in_get, args=(about_to_get, there)) for _ in range(count)]
    for each in processes:
        each.start()
    for _ in processes:
        about_to_get.acquire()
    time.sleep(1)
    before = sum(time_on_processor(each.pid) for each in processes)
    time.sleep(while_measured)
    used = sum(time_on_processor(each.pid) for each in processes) - before
    measure.show(name, 100 * used / 1e9 / while_measured, "%")
    for _ in processes:
        there.put(0)
    for each in processes:
        each.join()


if __name__ == "__main__":
    measure.main({
        "queue of ints, 1 to 1": ints,
        "queue of ints, 2 to 2": ints_between_four,
        "queue of 1 KiB strings": strings,
        "queue of 1 MiB arrays": arrays(1 << 20, 100),
        "queue of 16 MiB arrays": arrays(1 << 24, 8),
        "queue round trip, spinning": spinning,
        "queue round trip, asleep on one core": asleep_on_one_core,
        "queue round trip, asleep for 1 ms": asleep_after_a_rest,
        "fifo, 1 to 1": fifo_cell(1, 1, 200_000),
        "fifo, 1 to 10": fifo_cell(1, 10, 100_000),
        "fifo, 10 to 1": fifo_cell(10, 1, 150_000),
        "fifo, 3 to 20": fifo_cell(3, 20, 100_000),
        "fifo, 20 to 3": fifo_cell(20, 3, 150_000),
        "fifo, 20 to 20": fifo_cell(20, 20, 150_000),
        "queue with 50 sleepers in get": sleepers,
    })
