# SPDX-License-Identifier: BSL-1.0
#
# The subjects of subjects.cpp in CPython, printed in the same form.
import multiprocessing as mp
import time


def timed(run):
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def show(name, value, unit):
    print(name, "cpython", f"{value:.6g}", unit, sep="\t", flush=True)


def square(x):
    return x * x


def produce(queue, item, items):
    for _ in range(items):
        queue.put(item)


def nothing():
    pass


def queue_of(name, item, items, scale, unit):
    queue = mp.Queue()
    producer = mp.Process(target=produce, args=(queue, item, items))

    def run():
        producer.start()
        for _ in range(items):
            queue.get()
        producer.join()

    show(name, items / timed(run) * scale, unit)


def start_and_join(context, times):
    for _ in range(times):
        process = context.Process(target=nothing)
        process.start()
        process.join()


def main():
    items = 1_000_000
    numbers = list(range(items))
    with mp.Pool(2) as pool:
        pool.map(square, range(1000))
        show("pool.map of 10^6 squares", items / timed(lambda: pool.map(square, numbers)) / 1e6, "M/s")
        calls = 1000
        show("pool.apply round trip",
             timed(lambda: [pool.apply(square, (i,)) for i in range(calls)]) / calls * 1e6, "µs")
        few = 20_000
        show("pool.imap_unordered, chunks of 1",
             few / timed(lambda: sum(1 for _ in pool.imap_unordered(square, range(few)))) / 1e3, "k/s")
    queue_of("queue of ints, 1 to 1", 7, 50_000, 1e-6, "M/s")
    queue_of("queue of 1 KiB strings", "x" * 1024, 50_000, 1024e-9, "GB/s")
    queue_of("queue of 1 MiB arrays", bytes(1 << 20), 200, 1048576e-9, "GB/s")
    for method, times in [("fork", 50), ("spawn", 5), ("forkserver", 10)]:
        context = mp.get_context(method)
        start_and_join(context, 1)
        show(f"process, {method}", timed(lambda: start_and_join(context, times)) / times * 1e6, "µs")
    lock, pairs = mp.Lock(), 300_000

    def lock_pairs():
        for _ in range(pairs):
            lock.acquire()
            lock.release()

    show("lock and unlock, alone", timed(lock_pairs) / pairs * 1e9, "ns")


if __name__ == "__main__":
    main()
