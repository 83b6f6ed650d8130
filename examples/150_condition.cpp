// A Condition: each process waits for its turn, and hands it to the next.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Condition, Process, Value
//
//     def speak(changed, turn, number):
//         with changed:
//             changed.wait_for(lambda: turn.value == number)
//             print("number", number, "speaks", flush=True)
//             turn.value += 1
//             changed.notify_all()
//
//     if __name__ == "__main__":
//         changed, turn = Condition(), Value("i", 0, lock=False)
//         speakers = [Process(target=speak, args=(changed, turn, i)) for i in range(4)]
//         for p in reversed(speakers): p.start()
//         for p in speakers: p.join()
#include <multiprocessing.hpp>

#include <iostream>
#include <vector>

namespace mp = multiprocessing;

void speak(mp::Condition changed, mp::Value<int> turn, int number) {
    changed.acquire();
    changed.wait_for([&] { return turn.value() == number; });
    std::cout << "number " << number << " speaks" << std::endl;
    turn.value() += 1;
    changed.notify_all();
    changed.release();
}

int main() {
    mp::Condition changed;
    mp::Value<int> turn(0, mp::no_lock);  // guarded by the condition's lock
    std::vector<mp::Process> speakers;
    for (int i = 3; i >= 0; --i) speakers.emplace_back(speak, changed, turn, i);
    for (const mp::Process& p : speakers) p.start();
    for (const mp::Process& p : speakers) p.join();
}
