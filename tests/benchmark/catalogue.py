# SPDX-License-Identifier: BSL-1.0
#
# What is measured: the groups of subjects in the order of the tables, a sentence on each, and what is
# required of it.
from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class Subject:
    name: str
    says: str
    # At least how many times as good as whom, by name in the lines.
    required: dict[str, float] = dataclasses.field(default_factory=dict)
    # At most so much (of what is better when it is less).
    at_most: float | None = None
    label: str = ""

    def __post_init__(self):
        self.label = self.label or self.name


@dataclasses.dataclass
class Group:
    title: str
    says: str
    subjects: list[Subject]
    # Of those whose names only the programs know.
    prefix: str = ""


# The columns, beside ours, and their headings.
OTHERS = {
    "cpython": "CPython",
    "cpython, bytes": "CPython, bytes",
    "cpython, update": "CPython, `update`",
    "mpi4py": "mpi4py",
    "mpi4py, chunks": "mpi4py, chunks",
    "mpi4py, bytes": "mpi4py, bytes",
    "by hand": "MPI by hand",
    "limit": "bare limit",
    "spsc": "bare SPSC ring",
    "socketpair": "bare `socketpair`",
    "boost": "Boost.Interprocess",
    "mpi": "MPI",
    "ideal": "ideal",
}

# Beside `get`, the table of faster-fifo has `get_many`: CPython has none, and is the same in both rows.
FIFO_SAYS = {
    (1, 1): "One of each.",
    (1, 10): "Ten consumers share what one producer makes: nine sleep most of the time.",
    (10, 1): "One consumer is what all wait for.",
    (3, 20): "More consumers than anything else.",
    (20, 3): "More producers than anything else.",
    (20, 20): "Forty processes on one queue.",
}


def fifo_subjects():
    for (producers, consumers), says in FIFO_SAYS.items():
        required = {"cpython": 100 if producers == consumers == 20 else 20}
        name = f"fifo, {producers} to {consumers}"
        label = f"{producers} to {consumers}"
        yield Subject(name, says, required, label=f"{label}, `get`")
        yield Subject(f"{name}, get_many", "", required, label=f"{label}, `get_many(100)`")


GROUPS = [
    Group("Queues", """\
One producer, a process of its own, puts; the process that made the queue gets; the time is from the
producer's start to its join. The queues are unbounded, as `Queue()` is. The limit spins: it does not
sleep, knows one type, is bounded, and breaks when a peer dies in it.""", [
        Subject("queue of ints, 1 to 1", """\
`Queue<int>`, one int after the other. The limit is Vyukov's bounded ring of many producers and many
consumers with one word in a slot, of 4,096 slots; beside it Lamport's ring of one producer and one
consumer. Boost's is `message_queue` with room for 1,024 ints, MPI's messages have 8 bytes.""",
                {"cpython": 100, "limit": 0.5, "mpi": 1}),
        Subject("queue of ints, 2 to 2", """\
The same with two producers and two consumers, each a process; the time is from the first start to the
last join.""",
                {"cpython": 100}),
        Subject("queue of 1 KiB strings", """\
`Queue<std::string>`, strings of 1,024 characters. The limit is a ring of one producer and one consumer
whose 256 slots are copied into and out of.""",
                {"cpython": 15}),
        Subject("queue of 1 MiB arrays", """\
`Queue<std::vector<double>>`, 131,072 numbers each; in CPython `array.array('d')`, and `bytes` of that
size beside it, which it is quicker with. The limit is a copying ring of four slots of that size, its
memory and both ends' touched before.""",
                {"cpython": 12, "cpython, bytes": 12, "limit": 1 / 3}),
        Subject("queue of 16 MiB arrays", """\
The same with 2,097,152 numbers each, and two slots.""",
                {"cpython": 8, "cpython, bytes": 8}),
    ]),
    Group("faster-fifo's table", """\
The test that the table in the README of [faster-fifo](https://github.com/alex-petrenko/faster-fifo) is
from, as it is there: producers put a tuple of five ints with a timeout of 10 ms into a queue bounded to
100,000, consumers get with a timeout of 1 ms until all producers have ended and the queue is empty, and
the time is from the first start to the last join. Each cell has as many messages as take long enough,
100,000 to 200,000 in CPython. `get_many(100)` is ours alone; it is compared with CPython's `get`.""",
          list(fifo_subjects())),
    Group("Round trips through two queues", """\
An int goes to a process that waits for it and sends it back through another queue.""", [
        Subject("queue round trip, spinning", """\
On two cores and without a pause: neither side waits long. The limit is two cache lines that both sides
look at without end, MPI's is `MPI_Send` and `MPI_Recv` of 8 bytes.""",
                at_most=1),
        Subject("queue round trip, asleep on one core", """\
Both processes are bound to one core: each must sleep for the other to run. The limit is a word for each
direction with `FUTEX_WAIT` and `FUTEX_WAKE`.""",
                {"limit": 1 / 1.3}),
        Subject("queue round trip, asleep for 1 ms", """\
The first side sleeps a millisecond before each trip, which does not count, so that the other has fallen
asleep. The mean of 300 trips.""",
                {"limit": 1 / 1.3}),
    ]),
    Group("Sleepers", "", [
        Subject("queue with 50 sleepers in get", """\
50 processes wait in `get` of an empty queue for ten seconds: what they use, together, of one processor.
Once in a run.""",
                at_most=0.1),
    ]),
    Group("Pipes", """\
One process sends, another receives. The limit of a round trip is a blocking `read` and `write` of four
bytes at a bare `socketpair`. That of the others is a copying ring of four slots of 1 MiB, whose memory
and both ends' was touched before; beside it the same bytes through a bare `socketpair` into memory that
was touched before.""", [
        Subject("pipe round trip of an int", """\
`send` of an int to a process that waits in `recv` and sends it back."""),
        Subject("pipe round trip of an int, on one core", """\
The same, both processes bound to one core."""),
        Subject("pipe, send_bytes of 1 MiB", """\
`send_bytes` and `recv_bytes`. MPI's are messages of that size into the same memory again and again."""),
        Subject("pipe, send_bytes of 64 MiB", """\
The same with 64 MiB; each message received is new memory, here as in CPython.""",
                {"cpython": 8}),
        Subject("pipe, send_bytes of 64 MiB into a buffer", """\
The same with `recv_bytes_into`, which uses one buffer again.""",
                {"cpython": 8}),
        Subject("pipe, send of 64 MiB bytes", """\
`send` and `recv` of a byte string as an object.""",
                {"cpython": 8}),
        Subject("pipe, send of 64 MiB arrays", """\
`send` and `recv` of a `std::vector<double>`; in CPython of an `array.array('d')`.""",
                {"cpython": 8}),
    ]),
    Group("Pools", """\
A `Pool`, or a `ProcessPoolExecutor`, of two workers that has done something before. Where the limit is
something else than the same work by bare processes it says so.""", [
        Subject("pool.map of 10^6 squares", """\
`map` of a function that squares over 10⁶ ints. The limit is a loop in one process, which neither hands
them over nor takes them back.""",
                {"cpython": 20}),
        Subject("pool.imap_unordered, chunks of 1", """\
`imap_unordered` of that function, each int a task of its own.""",
                {"cpython": 20}),
        Subject("pool.imap, chunks of 1", """\
The same in order.""",
                {"cpython": 20}),
        Subject("pool.apply round trip", """\
`apply` of that function, one call after the other. The limit is two processes that wake each other by a
futex.""",
                {"limit": 1 / 1.5}),
        Subject("pool start, close, join", """\
A pool that has nothing to do. The limit is two bare forks and the wait for their end.""",
                {"limit": 1 / 2}),
        Subject("pool, 1 MiB results", """\
`imap_unordered` of a function that makes an array of doubles. The limit is a process that makes them and
copies them into memory from which another copies them out.""",
                {"limit": 1 / 1.5}),
        Subject("pool.map of 100 µs tasks", """\
Tasks that compute for some 100 µs. The limit is two processes that do half of them each, and talk to
nobody.""",
                {"limit": 0.97}),
        Subject("pool.imap_unordered of 100 µs tasks", """\
The same, each a task of its own whose result is taken when it comes."""),
        Subject("executor.submit, many", """\
`submit` of the function that squares, again and again, then the results.""",
                {"cpython": 30}),
        Subject("executor.submit and result", """\
One after the other."""),
    ]),
    Group("Locks and signals", """\
The limits are bare: a robust `pthread_mutex` shared between processes, a `std::atomic`, a futex, a
`sem_t`, a `pthread_barrier`. Of those but the first none notices the death of a process. Two
processes have a processor each. Wake-ups are the median of 300 from the moment before the call to that at
which who slept has returned; in between the first sleeps a millisecond.""", [
        Subject("lock and unlock, alone", """\
`acquire` and `release` of a `Lock` that nobody else wants.""",
                {"limit": 1 / 1.5, "cpython": 4}),
        Subject("recursive lock and unlock, alone", """\
The same of an `RLock`; the limit is a robust mutex that is recursive.""",
                {"limit": 1 / 1.5, "cpython": 4}),
        Subject("lock and unlock, two processes", """\
Pairs of `acquire` and `release` by two processes that do nothing else, from the first start to the last
join."""),
        Subject("value += 1 under its lock, two processes", """\
The same with an addition in between, of a `Value<int>` under its `get_lock()`.""",
                {"cpython": 10}),
        Subject("fetch_add", """\
`fetch_add` of a `Value<int>` by one process.""",
                {"limit": 1 / 1.1}),
        Subject("fetch_add, two processes", """\
The same by two at once.""",
                {"limit": 1 / 1.2}),
        Subject("event wake-up", """\
`set` of an `Event` that another process waits for.""",
                {"limit": 1 / 1.2}),
        Subject("event wake-up, on one core", """\
The same, both processes bound to one core.""",
                {"limit": 1 / 1.2}),
        Subject("condition wake-up", """\
`notify` of a `Condition` by who has its lock and gives it up then; who waits has the lock again.""",
                {"limit": 1 / 1.2}),
        Subject("condition wake-up, on one core", """\
The same, both processes bound to one core.""",
                {"limit": 1 / 1.2}),
        Subject("barrier of two", """\
Two processes that pass a `Barrier(2)` again and again.""",
                {"cpython": 20}),
        Subject("semaphore, alone", """\
`acquire` and `release` of a `Semaphore` that nobody else wants."""),
        Subject("bounded semaphore, alone", """\
The same of a `BoundedSemaphore`, which keeps books of who has its permits."""),
        Subject("memory of a lock", """\
What 10,000 locks, each used once, add to the memory of their process, shared and private; descriptors
would count as 1,000 bytes each.""",
                at_most=64),
    ]),
    Group("Managers", """\
A dict of a thousand ints in the server of a manager, a child of the process that uses it. Calls a
second; in batches, items a second, a thousand in each request.""", [
        Subject("manager, dict get", """\
One key, again and again.""",
                {"cpython": 4}),
        Subject("manager, dict set", """\
The same, set.""",
                {"cpython": 4}),
        Subject("manager, dict +=", """\
Adds in the server, in one step; CPython's is a get and a set, between which others may set."""),
        Subject("manager, dict get in batches", """\
`get_many` of a thousand keys; beside CPython's get of one.""",
                {"cpython": 20}),
        Subject("manager, dict set in batches", """\
`update` with a thousand items; beside CPython's set of one, and its `update`.""",
                {"cpython": 20}),
    ]),
    Group("Listener and Client", """\
Connections between processes. The limit of the handshake is a bare `connect` and `accept` of an AF_UNIX
socket, that of messages as many bytes by `write` and `read` between two of them. Who receives does so
into the same memory again and again.""", [
        Subject("handshake", """\
`Client` and `accept` with a key, over AF_UNIX: both prove that they know it.""",
                at_most=1000),
        Subject("AF_UNIX, 64 KiB", "`send_bytes` and `recv_bytes_into`.", {"limit": 1}),
        Subject("AF_UNIX, 1 MiB", "", {"limit": 1}),
        Subject("AF_UNIX, 64 MiB", "", {"limit": 1}),
        Subject("AF_INET, 64 KiB", "The same over the loopback interface.", {"limit": 1}),
        Subject("AF_INET, 1 MiB", "", {"limit": 1}),
    ]),
    Group("The pool over MPI", """\
`mp::mpi::Pool` beside `mpi4py.futures.MPIPoolExecutor`, and a master with workers that are written by hand
in C: a message there and one back for each task, while the worker blocks in `MPI_Recv`. In each row all have
as many ranks: one is the master, the others are workers, all on this machine and through shared memory. Two
ranks are bound to a core each, as is Open MPI's way; where there are more ranks than cores nobody has one for
itself.""", [
        Subject("ranks, tiny tasks", """\
`map` of a function that squares, each int a task of its own, `chunksize=1`; one worker.""",
                {"mpi4py": 5, "by hand": 0.5}, label="tiny tasks"),
        Subject("ranks, tiny tasks in chunks", """\
The same with the default, which is that the pool chooses. That of mpi4py is 1; beside it `chunksize=100`,
and by hand there are 100 in a message, too.""", label="tiny tasks in chunks"),
        Subject("ranks, tiny tasks, 3 workers", """\
The first again, with three workers.""", label="tiny tasks, 3 workers"),
        Subject("ranks, apply round trip", """\
`apply`, one call after the other; in mpi4py `submit` and `result`; by hand `MPI_Send` and `MPI_Recv`.""",
                label="`apply` round trip"),
        Subject("ranks, 1 MiB arguments", """\
64 different arrays of 131,072 doubles, each the argument of a task that returns a number; one worker. In
mpi4py an `array.array('d')`, and `bytes` of that size beside it. The limit is `MPI_Send` of the same arrays,
one after the other, received into one buffer; it can be surpassed, for each array comes from memory that no
cache has any more, while a pool may write the next while one is on its way.""",
                {"limit": 0.8}, label="1 MiB arguments"),
        Subject("ranks, 16 MiB of state", """\
200 tiny tasks, `chunksize=1`, of a function that has an array of 2,097,152 doubles bound, `mp::partial(f,
array)`, another one each time; three workers. mpi4py sends it with each task, or beside it with each chunk of
67; by hand it goes by `MPI_Bcast`, before the tasks.""", label="16 MiB of state"),
        Subject("ranks, hybrid, tiny tasks", """\
The first again with `.hybrid`, as if the two ranks were two nodes, of two processes each. The others have one
worker as before. Ours are not bound to a core here.""", label="hybrid, tiny tasks"),
        Subject("ranks, balance", """\
`map` of 64 tasks with the default of each; two workers. One task, the 17th, takes 40 ms of a processor, the
others 1 ms. Ideal is half of what all take together.""", label="balance"),
    ]),
    Group("Processes", """\
Start of a process that ends at once, and its join: medians. The limit of `fork` and `forkserver` is a
bare `fork` and `waitpid`, that of `spawn` a bare `posix_spawn` of the program itself. With more memory,
which was touched, `fork` has more to copy.""", [], prefix="process, "),
]
