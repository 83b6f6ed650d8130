// SPDX-License-Identifier: BSL-1.0
//
// What a client that knows the key may ask of a manager's server: it gets a value or an exception, and
// the server goes on.
//
// Each request is a byte for its length and as many bytes. Where it names an entry, the number of one
// that there is is put in, by the first byte of the name: nobody guesses them.
#include <multiprocessing/managers.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace mp = multiprocessing;
using namespace mp::managers;

namespace {

using Dict = DictProxy<std::string, int>;
using List = ListProxy<std::vector<std::string>>;

std::shared_ptr<ServerState> make_server() {
    Dict::expose_all();
    List::expose_all();
    expose_creation<Dict::Referent>();
    Factories factories;
    factories.emplace("list", [] { return std::make_shared<Managed<List::Referent>>(std::in_place); });
    return std::make_shared<ServerState>(mp::connection::Listener(), std::move(factories));
}

std::vector<std::byte> with_entry(std::span<const std::byte> request) {
    std::vector<std::byte> result(request.begin(), request.end());
    if (result.empty()) return result;
    const auto kind = static_cast<Request>(result[0]);
    const std::size_t place = kind == Request::call ? 9 : 1;
    if ((kind != Request::call && kind != Request::create) || result.size() < place + 8) return result;
    auto left = std::to_integer<unsigned>(result[place]);
    const KnownEntry* const first = KnownEntry::first.load();
    const KnownEntry* entry = first;
    for (; left != 0; --left) entry = entry->next != nullptr ? entry->next : first;
    const std::uint64_t hash = entry->hash();
    std::memcpy(result.data() + place, &hash, sizeof hash);
    return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto server = make_server();
    const SessionId session{1, 2};
    References& references = server->references();
    references.enter(session, {});
    const Caller caller(references, server->stopping(), session, -1);
    static_cast<void>(caller.give(std::make_shared<Managed<Dict::Referent>>(std::in_place)));
    auto rest = std::as_bytes(std::span(data, size));
    while (!rest.empty()) {
        const std::size_t length =
            std::min<std::size_t>(std::to_integer<std::size_t>(rest[0]), rest.size() - 1);
        mp::pickle::Cargo in;
        mp::pickle::Buffer reply;
        std::optional<mp::pickle::Cargo> out;
        server->execute(caller, with_entry(rest.subspan(1, length)), in, reply, out, false);
        if (reply.size() == 0) std::abort();
        rest = rest.subspan(1 + length);
        if (server->stopping()) break;
    }
    references.leave(session);
    server->stop();
    return 0;
}
