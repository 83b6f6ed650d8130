// SPDX-License-Identifier: BSL-1.0
//
// For libFuzzer: whatever the bytes are, reading them as Python's pickle ends in an object or in an
// UnpicklingError. An object is written and read again as itself, and `get` takes it for what it
// is.
#include <multiprocessing/python.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

namespace mp = multiprocessing;

namespace {

void require(bool truth) {
    if (!truth) std::abort();
}

// As a type that has something of everything. What fits is written and read again, too.
void read_as_types(std::span<const std::byte> pickled) {
    using Leaf = std::variant<std::monostate, bool, std::int8_t, char, std::string, mp::bytes>;
    using Tree =
        std::variant<Leaf, std::vector<Leaf>, std::map<Leaf, std::optional<std::int64_t>>,
                     std::set<std::pair<Leaf, Leaf>>, std::tuple<Leaf, Leaf, std::vector<double>>>;
    try {
        const auto tree = mp::python::loads<Tree>(pickled);
        const mp::bytes again = mp::python::dumps(tree);
        require(mp::python::dumps(mp::python::loads<Tree>(again)) == again);
    } catch (const mp::UnpicklingError&) {}
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto pickled = std::as_bytes(std::span(data, size));
    mp::python::object object;
    try {
        object = mp::python::loads(pickled);
    } catch (const mp::UnpicklingError&) {
        return 0;
    }
    // By what is written, not by ==: a NaN is not equal to itself.
    const mp::bytes written = mp::python::dumps(object);
    // A few bytes may stand for megabytes, with which the rest would take seconds.
    if (written.size() > 64 * 1024) return 0;
    const auto again = mp::python::loads(written);
    require(mp::python::dumps(again) == written);
    require(mp::python::dumps(object.get<mp::python::object>()) == written);
    std::ostringstream here;
    std::ostringstream there;
    here << object;
    there << again;
    require(here.str() == there.str());
    const bool has_nan = here.str().find("nan") != std::string::npos;
    require(has_nan || object == again);
    read_as_types(pickled);
    return 0;
}
