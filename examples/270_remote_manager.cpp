// A remote manager: a queue that other machines put into and get from.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Process, Queue
//     from multiprocessing.managers import BaseManager
//
//     class QueueManager(BaseManager): pass
//     ...
//     QueueManager.register("jobs", callable=lambda: queue)
//     server = QueueManager(address=("", 50000), authkey=b"secret").get_server()
//     server.serve_forever()
//
//     QueueManager.register("jobs")             # in the other program
//     m = QueueManager(address=("server", 50000), authkey=b"secret")
//     m.connect()
//     m.jobs().put("hello")
#include <multiprocessing.hpp>

#include <iostream>
#include <string>
#include <thread>

namespace mp = multiprocessing;
using mp::connection::Address;
using mp::managers::BaseManager;

// What another machine would run.
void client(const Address& address) {
    const BaseManager manager({.address = address, .authkey = "secret"});
    manager.connect();
    const auto jobs = manager.object<mp::Queue<std::string>>("jobs");
    jobs.put("hello");
    jobs.put("from afar");
    jobs.shutdown();
}

int main() {
    const mp::Queue<std::string> jobs;
    const BaseManager manager({.address = Address("127.0.0.1", 0), .authkey = "secret"});
    manager.register_object("jobs", [jobs] { return jobs; });
    const auto server = manager.get_server();
    std::thread serving([&] { server.serve_forever(); });

    mp::Process p(client, server.address());
    p.start();
    for (const std::string& job : jobs) std::cout << job << '\n';
    p.join();
    server.stop();
    serving.join();
}
