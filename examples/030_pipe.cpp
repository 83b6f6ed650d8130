// Messages of several types over a Pipe, both ways.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Process, Pipe
//
//     def serve(connection):
//         connection.send((42, None, "hello"))
//         while (text := connection.recv()) != "":
//             connection.send(text.upper())
//         connection.close()
//
//     if __name__ == "__main__":
//         ours, theirs = Pipe()
//         p = Process(target=serve, args=(theirs,))
//         p.start()
//         number, nothing, text = ours.recv()
//         print(number, "nothing" if nothing is None else nothing, text)
//         for word in ["spam", "eggs"]:
//             ours.send(word)
//             print(word, "came back as", ours.recv())
//         ours.send("")
//         p.join()
#include <multiprocessing.hpp>

#include <cctype>
#include <iostream>
#include <optional>
#include <string>
#include <tuple>

namespace mp = multiprocessing;

using Greeting = std::tuple<int, std::optional<double>, std::string>;

void serve(mp::Connection connection) {
    connection.send(Greeting(42, std::nullopt, "hello"));
    for (std::string text; !(text = connection.recv<std::string>()).empty();) {
        for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
        connection.send(text);
    }
    connection.close();
}

int main() {
    auto [ours, theirs] = mp::Pipe();
    mp::Process p(serve, theirs);
    p.start();

    const auto [number, nothing, text] = ours.recv<Greeting>();
    std::cout << number << ' ' << (nothing ? std::to_string(*nothing) : "nothing") << ' ' << text
              << '\n';
    for (const char* word : {"spam", "eggs"}) {
        ours.send(word);
        std::cout << word << " came back as " << ours.recv<std::string>() << '\n';
    }
    ours.send("");
    p.join();
}
