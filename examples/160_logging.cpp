// What the library logs, and what is left to do when a process ends.
// SPDX-License-Identifier: BSL-1.0
//
//     import logging, sys
//     from multiprocessing import Process, get_logger, util
//
//     def work():
//         util.Finalize(None, print, args=("tidied up",), exitpriority=10)
//         get_logger().warning("halfway")
//
//     if __name__ == "__main__":
//         logger = get_logger()
//         logger.setLevel(logging.INFO)
//         handler = logging.StreamHandler(sys.stdout)
//         handler.setFormatter(logging.Formatter("%(levelname)s of %(processName)s: %(message)s"))
//         logger.addHandler(handler)
//         p = Process(target=work, name="Worker")
//         p.start()
//         p.join()
#include <multiprocessing.hpp>

#include <iostream>

namespace mp = multiprocessing;

void work() {
    mp::util::register_exit([] { std::cout << "tidied up" << std::endl; }, 10);
    mp::get_logger().warning("halfway");
}

void print(const mp::LogRecord& record) {
    // The parent's records tell the pid, which is another each time.
    if (record.process_name != "Worker") return;
    std::cout << record.level_name() << " of " << record.process_name << ": " << record.message
              << std::endl;
}

int main() {
    // mp::log_to_stderr(mp::log_level::info) is the short way.
    mp::get_logger().set_level(mp::log_level::info);
    mp::get_logger().set_sink(print);
    mp::Process p({.name = "Worker"}, work);
    p.start();
    p.join();
}
