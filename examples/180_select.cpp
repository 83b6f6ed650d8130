// Several queues and pipes at once: select() and connection.wait() return those that have something.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Pipe, Process, Queue
//     from multiprocessing.connection import wait
//
//     def measure(readings):
//         for n in range(3):
//             readings.put(20 + n)
//
//     def remark(remarks):
//         remarks.put("all is well")
//
//     def report(end):
//         end.send(3)
//
//     if __name__ == "__main__":
//         readings, remarks = Queue(), Queue()
//         processes = [Process(target=measure, args=(readings,)), Process(target=remark, args=(remarks,))]
//         for process in processes:
//             process.start()
//         total, text = 0, ""
//         while total < 63 or not text:
//             for ready in wait([readings._reader, remarks._reader]):   # no public way in Python
//                 if ready is readings._reader:
//                     total += readings.get()
//                 else:
//                     text = remarks.get()
//         print("readings add up to", total, "and", text)
//
//         here, there = Pipe()
//         reporter = Process(target=report, args=(there,))
//         reporter.start()
//         print("it reports", here.recv() if here in wait([here, reporter.sentinel]) else "nothing")
//         for process in processes + [reporter]:
//             process.join()
#include <multiprocessing.hpp>

#include <algorithm>
#include <iostream>
#include <string>

namespace mp = multiprocessing;

void measure(mp::Queue<int> readings) {
    readings.put_many(mp::range(20, 23));
}

void remark(mp::Queue<std::string> remarks) {
    remarks.put("all is well");
}

void report(mp::Connection end) {
    end.send(3);
}

int main() {
    mp::Queue<int> readings;
    mp::Queue<std::string> remarks;
    mp::Process processes[] = {mp::Process(measure, readings), mp::Process(remark, remarks)};
    for (auto& process : processes) process.start();

    int total = 0;
    std::string text;
    while (total < 63 || text.empty()) {
        for (const std::size_t ready : mp::select({&readings, &remarks})) {
            if (ready == 0) {
                for (const int reading : readings.get_many(10)) total += reading;
            } else {
                text = remarks.get();
            }
        }
    }
    std::cout << "readings add up to " << total << " and " << text << '\n';

    auto [here, there] = mp::Pipe();
    mp::Process reporter(report, there);
    reporter.start();
    const auto ready = mp::connection::wait({here, reporter.sentinel()});
    if (std::find(ready.begin(), ready.end(), here) != ready.end()) {
        std::cout << "it reports " << here.recv<int>() << '\n';
    }
    for (auto& process : processes) process.join();
    reporter.join();
}
