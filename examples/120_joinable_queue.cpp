// A JoinableQueue: join() returns when every item that was put has been worked off.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import JoinableQueue, Process, Value
//
//     def work(jobs, total):
//         while True:
//             job = jobs.get()
//             with total.get_lock():
//                 total.value += job
//             jobs.task_done()
//
//     if __name__ == "__main__":
//         jobs, total = JoinableQueue(), Value("i", 0)
//         for _ in range(3):
//             Process(target=work, args=(jobs, total), daemon=True).start()
//         for job in range(1, 101):
//             jobs.put(job)
//         jobs.join()
//         print("all jobs are done, their sum is", total.value)
#include <multiprocessing.hpp>

#include <iostream>
#include <mutex>

namespace mp = multiprocessing;

void work(mp::JoinableQueue<int> jobs, mp::Value<int> total) {
    while (true) {
        const int job = jobs.get();
        {
            std::lock_guard guard(total.get_lock());
            total.value() += job;
        }
        jobs.task_done();
    }
}

int main() {
    mp::JoinableQueue<int> jobs;
    mp::Value<int> total(0);
    for (int i = 0; i < 3; ++i) mp::Process({.daemon = true}, work, jobs, total).start();

    for (int job = 1; job <= 100; ++job) jobs.put(job);
    jobs.join();
    std::cout << "all jobs are done, their sum is " << total.value() << '\n';
}  // the workers wait for more; daemons are terminated here
