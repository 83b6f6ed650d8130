// Listener and Client: a connection between processes that know each other's address and a key.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Process
//     from multiprocessing.connection import Client, Listener
//
//     def ask(address):
//         with Client(address, authkey=b"secret") as connection:
//             connection.send(20)
//             print("answer:", connection.recv())
//
//     if __name__ == "__main__":
//         with Listener(("127.0.0.1", 0), authkey=b"secret") as listener:
//             p = Process(target=ask, args=(listener.address,))
//             p.start()
//             with listener.accept() as connection:
//                 connection.send(connection.recv() + 1)
//             p.join()
#include <multiprocessing.hpp>

#include <iostream>

namespace mp = multiprocessing;
using mp::connection::Address;
using mp::connection::Client;
using mp::connection::Listener;

void ask(const Address& address) {
    const mp::Connection connection = Client(address, {.authkey = "secret"});
    connection.send(20);
    std::cout << "answer: " << connection.recv<int>() << '\n';
}

int main() {
    const Listener listener(Address("127.0.0.1", 0), {.authkey = "secret"});
    mp::Process p(ask, listener.address());
    p.start();
    for (;;) {
        try {
            const mp::Connection connection = listener.accept();
            connection.send(connection.recv<int>() + 1);
            break;
        } catch (const mp::AuthenticationError& error) {  // a stranger: not this one, then the next
            std::cerr << error.what() << '\n';
        }
    }
    p.join();
}
