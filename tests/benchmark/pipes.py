# SPDX-License-Identifier: BSL-1.0
#
# The subjects of pipes.cpp in CPython, as somebody who uses multiprocessing would write them.
import array
import multiprocessing as mp

import measure

MEBIBYTE = 1 << 20


def echo(end, count):
    for _ in range(count):
        end.send(end.recv())


def trips(count):
    here, there = mp.Pipe()
    other = mp.Process(target=echo, args=(there, count))
    other.start()

    def run():
        for _ in range(count):
            here.send(7)
            here.recv()

    taken = measure.timed(run)
    other.join()
    return taken


def round_trip(name):
    measure.microseconds(name, trips, 1000)


def round_trip_on_one_core(name):
    measure.on_one_core(lambda: measure.microseconds(name, trips, 1000))


def send_bytes(end, message, count):
    for _ in range(count):
        end.send_bytes(message)


def send(end, message, count):
    for _ in range(count):
        end.send(message)


def throughput(name, mebibytes, sender, message, receive):
    def run_one(count):
        receiving, sending = mp.Pipe(False)
        process = mp.Process(target=sender, args=(sending, message, count))

        def run():
            process.start()
            for _ in range(count):
                receive(receiving)
            process.join()

        return measure.timed(run)

    measure.rate(name, "GB/s", mebibytes * MEBIBYTE * 1e-9, run_one, max(128 // mebibytes, 2))


def raw_bytes(mebibytes):
    return lambda name: throughput(name, mebibytes, send_bytes, bytes(mebibytes * MEBIBYTE),
                                   lambda end: end.recv_bytes())


def raw_bytes_into_a_buffer(mebibytes):
    def run(name):
        into = bytearray(mebibytes * MEBIBYTE)
        throughput(name, mebibytes, send_bytes, bytes(mebibytes * MEBIBYTE),
                   lambda end: end.recv_bytes_into(into))

    return run


def objects(mebibytes, make):
    return lambda name: throughput(name, mebibytes, send, make(mebibytes * MEBIBYTE), lambda end: end.recv())


if __name__ == "__main__":
    measure.main({
        "pipe round trip of an int": round_trip,
        "pipe round trip of an int, on one core": round_trip_on_one_core,
        "pipe, send_bytes of 1 MiB": raw_bytes(1),
        "pipe, send_bytes of 64 MiB": raw_bytes(64),
        "pipe, send_bytes of 64 MiB into a buffer": raw_bytes_into_a_buffer(64),
        "pipe, send of 64 MiB bytes": objects(64, bytes),
        "pipe, send of 64 MiB arrays": objects(64, lambda size: array.array("d", [1.5]) * (size // 8)),
    })
