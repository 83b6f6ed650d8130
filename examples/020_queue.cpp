// A producer and a consumer over a Queue that holds two items at most.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Process, Queue
//
//     def produce(queue):
//         for item in ["flour", "water", "salt", "yeast"]:
//             queue.put(item)
//         queue.put(None)                     # nothing more will come
//
//     def consume(queue):
//         while (item := queue.get()) is not None:
//             print("got", item)
//         print("that was all")
//
//     if __name__ == "__main__":
//         queue = Queue(2)
//         producer = Process(target=produce, args=(queue,))
//         consumer = Process(target=consume, args=(queue,))
//         producer.start(); consumer.start()
//         producer.join(); consumer.join()
#include <multiprocessing.hpp>

#include <iostream>
#include <string>

namespace mp = multiprocessing;

void produce(mp::Queue<std::string> queue) {
    for (const char* item : {"flour", "water", "salt", "yeast"}) queue.put(item);
    queue.shutdown();  // nothing more will come; what is in the queue will still be got
}

void consume(mp::Queue<std::string> queue) {
    for (const std::string& item : queue) std::cout << "got " << item << '\n';
    std::cout << "that was all\n";
}

int main() {
    mp::Queue<std::string> queue(2);
    mp::Process producer(produce, queue);
    mp::Process consumer(consume, queue);
    producer.start();
    consumer.start();
    producer.join();
    consumer.join();
}
