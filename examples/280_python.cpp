// Python at the other end: what its pickle holds, and what it is sent.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing.connection import Client         # a program of Python's own
//
//     with Client(("127.0.0.1", 50000), authkey=b"secret") as connection:
//         connection.send({"name": "Ada", "scores": [1, 2.5, None]})
//         print(connection.recv())                           # {'mean': 1.75}
#include <multiprocessing.hpp>

#include <iostream>
#include <map>
#include <string>
#include <thread>

namespace mp = multiprocessing;
using mp::connection::Address;
using mp::connection::Client;
using mp::connection::Listener;

// Stands for the Python program above, and sends the same bytes.
void python(const Address& address) {
    const mp::Connection connection = Client(address, {.authkey = "secret"});
    connection.send_python(mp::python::dict{
        {"name", "Ada"}, {"scores", mp::python::list{1, 2.5, mp::None}}});
    std::cout << connection.recv_python() << '\n';
}

int main() {
    const Listener listener(Address("127.0.0.1", 0), {.authkey = "secret"});
    std::jthread other(python, listener.address());
    const mp::Connection connection = listener.accept();

    const auto message = connection.recv_python();  // whatever it is
    std::cout << message << '\n';
    double sum = 0;
    int count = 0;
    for (const auto& score : message["scores"]) {
        if (score.is_none()) continue;
        sum += score.get<double>();
        ++count;
    }
    connection.send_python(std::map<std::string, double>{{"mean", sum / count}});
}
