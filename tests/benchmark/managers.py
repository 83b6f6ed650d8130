# SPDX-License-Identifier: BSL-1.0
#
# The subjects of managers.cpp in CPython, as somebody who uses multiprocessing would write them.
import multiprocessing as mp
import threading
from multiprocessing.connection import Client, Listener

import measure

BATCH = 1000


def calls(name, first, call, step=1, who="cpython"):
    with mp.Manager() as manager:
        shared = manager.dict({i: i for i in range(BATCH)})
        measure.rate(name, "k/s", 1e-3, lambda count: measure.timed(lambda: call(shared, count)), first,
                     step=step, who=who)


def get_each(shared, count):
    for _ in range(count):
        shared[7]


def set_each(shared, count):
    for i in range(count):
        shared[7] = i


def add_each(shared, count):
    for _ in range(count):
        shared[7] += 1


def get(name):
    calls(name, 1000, get_each)


def set_(name):
    calls(name, 1000, set_each)


def add(name):
    calls(name, 1000, add_each)


def update_all(shared, count):
    items = {i: i for i in range(BATCH)}
    for _ in range(0, count, BATCH):
        shared.update(items)


def get_many(name):
    calls(name, 1000, get_each)


def update(name):
    calls(name, 1000, set_each)
    calls(name, 20 * BATCH, update_all, BATCH, "cpython, update")


def handshake(name):
    with Listener(None, backlog=16, authkey=b"secret") as listener:
        def trips(count):
            def accept():
                for _ in range(count):
                    listener.accept().close()

            accepting = threading.Thread(target=accept)
            accepting.start()

            def connect():
                for _ in range(count):
                    Client(listener.address, authkey=b"secret").close()

            taken = measure.timed(connect)
            accepting.join()
            return taken

        measure.microseconds(name, trips, 100)


def send(address, size, count):
    message = bytes(size)
    with Client(address) as there:
        for _ in range(count):
            there.send_bytes(message)


def throughput(name, address, size):
    into = bytearray(size)
    with Listener(address) as listener:
        def run(count):
            sender = mp.Process(target=send, args=(listener.address, size, count))
            sender.start()
            with listener.accept() as here:
                taken = measure.timed(lambda: [here.recv_bytes_into(into) for _ in range(count)])
            sender.join()
            return taken

        measure.rate(name, "GB/s", size * 1e-9, run, (64 << 20) // size)


if __name__ == "__main__":
    KIBIBYTE = 1024
    INET = ("127.0.0.1", 0)
    measure.main({
        "manager, dict get": get,
        "manager, dict set": set_,
        "manager, dict +=": add,
        "manager, dict get in batches": get_many,
        "manager, dict set in batches": update,
        "handshake": handshake,
        "AF_UNIX, 64 KiB": lambda name: throughput(name, None, 64 * KIBIBYTE),
        "AF_UNIX, 1 MiB": lambda name: throughput(name, None, 1024 * KIBIBYTE),
        "AF_UNIX, 64 MiB": lambda name: throughput(name, None, 64 * 1024 * KIBIBYTE),
        "AF_INET, 64 KiB": lambda name: throughput(name, INET, 64 * KIBIBYTE),
        "AF_INET, 1 MiB": lambda name: throughput(name, INET, 1024 * KIBIBYTE),
    })
