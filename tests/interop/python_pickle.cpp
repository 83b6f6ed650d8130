// SPDX-License-Identifier: BSL-1.0
//
// Pickles with Python: what it writes, in every protocol, is read here, and it reads what is
// written here.
#include <multiprocessing/python.hpp>

#include "interop/python.hpp"
#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <unistd.h>

namespace mp = multiprocessing;

namespace python_pickle_interop {

namespace python = mp::python;
using python::dict;
using python::list;
using python::object;
using python::set;
using python::tuple;
using support::text_of;

std::string hex_of(const mp::bytes& bytes) {
    constexpr char digits[] = "0123456789abcdef";
    std::string text;
    for (const std::byte byte : bytes) {
        text += digits[std::to_integer<unsigned>(byte) / 16];
        text += digits[std::to_integer<unsigned>(byte) % 16];
    }
    return text;
}
mp::bytes from_hex(const std::string& text) {
    mp::bytes bytes;
    for (std::size_t i = 0; i + 1 < text.size(); i += 2)
        bytes.push_back(static_cast<std::byte>(std::stoul(text.substr(i, 2), nullptr, 16)));
    return bytes;
}

std::string run(const std::string& python, const std::string& script,
                const std::string& argument = "") {
    const auto ran = support::run_program({python, "-c", script, argument});
    INFO(ran.err);
    CHECK(ran.exitcode == 0);
    CHECK(ran.err.empty());
    return ran.out;
}

// Every way that this Python has to pickle x: a line of hexadecimal digits for each.
const std::string pickle_x = R"(
import io, pickle, pickletools
def slow_dumps(x, protocol, fast=False):
    file = io.BytesIO()
    pickler = pickle._Pickler(file, protocol)
    pickler.fast = fast
    pickler.dump(x)
    return file.getvalue()
for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    plain = pickle.dumps(x, protocol)
    for pickled in plain, slow_dumps(x, protocol), slow_dumps(x, protocol, True), pickletools.optimize(plain):
        print(pickled.hex())
)";

std::vector<mp::bytes> pickles_of(const std::string& python, const std::string& x) {
    std::istringstream lines(run(python, x + pickle_x));
    std::vector<mp::bytes> pickles;
    for (std::string line; std::getline(lines, line);) pickles.push_back(from_hex(line));
    CHECK(pickles.size() >= 20);
    return pickles;
}

// The same value here and there.
const std::string everything_in_python = R"(
shared = ('shared', [1, 2])
x = {
    'none': None, 'bools': [True, False],
    'ints': [0, 1, -1, 255, 256, 65535, 65536, -65536, 2**31 - 1, 2**31, -2**31, -2**31 - 1, 2**63 - 1, -2**63, 2**63, 2**64 - 1],
    'floats': [0.0, -0.0, 1.5, 0.1, 1e300, 5e-324, float('inf'), float('-inf')],
    'strs': ['', 'a', 'it\'s', 'na\u00efve', '\u20ac', '\U0001F600', 'a\\b\n\r\t\0\x1a\\u0041', 'x' * 300],
    'bytes': [b'', b'a', b'\0\xff\n\'"\\', b'y' * 300, bytearray(b''), bytearray(b'z\xff')],
    'lists': [[], [[]], [[1], ['x', None]]],
    'tuples': ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((), ([],))),
    'dicts': [{}, {1: 'x', 2.5: 'y', None: 'z', True: {}, (1, 'a'): [2], b'k': 3}],
    'sets': [set(), {1}, frozenset(), frozenset([2.5]), {frozenset(['x'])}, {(1, 'x')}],
    'shared': [shared, shared, shared[1]],
    'long': list(range(2500)),
}
)";

object everything() {
    const tuple shared{"shared", list{1, 2}};
    const auto i64 = [](std::int64_t x) { return object(x); };
    using I64 = std::numeric_limits<std::int64_t>;
    using Real = std::numeric_limits<double>;
    std::vector<int> range(2500);
    for (int i = 0; i < 2500; ++i) range[static_cast<std::size_t>(i)] = i;
    using std::string;
    return dict{
        {"none", mp::None},
        {"bools", list{true, false}},
        {"ints", list{0, 1, -1, 255, 256, 65535, 65536, -65536, 2147483647, i64(2147483648),
                      i64(-2147483648), i64(-2147483649), I64::max(), I64::min(),
                      std::uint64_t{1} << 63, std::numeric_limits<std::uint64_t>::max()}},
        {"floats",
         list{0.0, -0.0, 1.5, 0.1, 1e300, Real::denorm_min(), Real::infinity(), -Real::infinity()}},
        {"strs", list{"", "a", "it's", "na\u00efve", "\u20ac", "\U0001F600",
                      string("a\\b\n\r\t\0\x1a\\u0041", 14), string(300, 'x')}},
        {"bytes", list{mp::bytes(), mp::bytes("a"), mp::bytes("\0\xff\n'\"\\"),
                       mp::bytes(string(300, 'y')), mp::bytes(), mp::bytes("z\xff")}},
        {"lists", list{list{}, object(list{object(list{})}), list{list{1}, list{"x", mp::None}}}},
        {"tuples", tuple{tuple{}, tuple{1}, tuple{1, 2}, tuple{1, 2, 3}, tuple{1, 2, 3, 4},
                         tuple{tuple{}, object(tuple{object(list{})})}}},
        {"dicts", list{dict{}, dict{{1, "x"},
                                    {2.5, "y"},
                                    {mp::None, "z"},
                                    {true, dict{}},
                                    {tuple{1, "a"}, list{2}},
                                    {mp::bytes("k"), 3}}}},
        {"sets", list{set{}, set{1}, set{}, set{2.5}, object(set{object(set{"x"})}),
                      object(set{object(tuple{1, "x"})})}},
        {"shared", list{shared, shared, shared[1]}},
        {"long", range},
    };
}

/// A folder that goes at the end of its scope.
struct TemporaryFolder {
    std::filesystem::path path =
        std::filesystem::temp_directory_path() / ("mp_pickle_" + std::to_string(::getpid()));
    TemporaryFolder() { std::filesystem::create_directory(path); }
    ~TemporaryFolder() { std::filesystem::remove_all(path); }
    void write(const std::string& name, const mp::bytes& bytes) const {
        std::ofstream(path / name, std::ios::binary) << bytes.str();
    }
    [[nodiscard]] std::string read(const std::string& name) const {
        std::ifstream file(path / name, std::ios::binary);
        return {std::istreambuf_iterator<char>(file), {}};
    }
};

TEST_CASE("what Python pickles is read here, whatever the protocol", "[interop][python]") {
    EVERY_PYTHON;
    const object expected = everything();
    for (const mp::bytes& pickled : pickles_of(python, everything_in_python)) {
        INFO(hex_of(pickled).substr(0, 40));
        const object read = mp::python::loads(pickled);
        CHECK(read == expected);
        CHECK(text_of(read) == text_of(expected));
        CHECK(mp::python::loads(mp::python::dumps(read)) == expected);
    }
}

TEST_CASE("what Python pickles is read as C++ types", "[interop][python]") {
    EVERY_PYTHON;
    using Row = std::tuple<int, double, std::optional<std::string>, std::vector<std::byte>>;
    using Table = std::map<std::string, std::vector<Row>>;
    const Table expected{{"a", {{1, 2.5, "x", {std::byte{255}}}, {-70000, 3, std::nullopt, {}}}}};
    for (const mp::bytes& pickled :
         pickles_of(python, "x = {'a': [(1, 2.5, 'x', b'\\xff'), (-70000, 3, None, b'')]}")) {
        CHECK(mp::python::loads<Table>(pickled) == expected);
    }
    for (const mp::bytes& pickled : pickles_of(python, "x = {1: {2, 3}, 2**40: frozenset()}")) {
        CHECK(mp::python::loads<std::map<std::uint64_t, std::set<short>>>(pickled) ==
              std::map<std::uint64_t, std::set<short>>{{1, {2, 3}}, {std::uint64_t{1} << 40, {}}});
    }
    for (const mp::bytes& pickled : pickles_of(python, "x = float('nan')")) {
        CHECK(std::isnan(mp::python::loads<double>(pickled)));
    }
    for (const mp::bytes& pickled : pickles_of(python, "x = -2**127")) {
        CHECK(bool(mp::python::loads<mp::python::int128>(pickled) ==
                   mp::python::integers::lowest<mp::python::int128>));
        CHECK_THROWS_AS(mp::python::loads<std::int64_t>(pickled), mp::UnpicklingError);
    }
}

TEST_CASE("Python reads what is pickled here", "[interop][python]") {
    EVERY_PYTHON;
    const std::string script = everything_in_python + R"(
import pickle, sys
def same(a, b):
    if isinstance(b, bytearray): b = bytes(b)
    if type(a) is not type(b):
        # What stands in a set or is a key comes frozen; elsewhere a set comes for a frozenset.
        return isinstance(a, set) and isinstance(b, frozenset) and a == b
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict): return same(list(a.items()), list(b.items()))
    return a == b and repr(a) == repr(b)
read = pickle.loads(bytes.fromhex(sys.argv[1]))
for key in x: print(key, same(read[key], x[key]))
print(same(read, x))
)";
    const object all = everything();
    std::string expected;
    for (const auto& [key, value] : all.get<dict>()) expected += key.get<std::string>() + " True\n";
    CHECK(run(python, script, hex_of(mp::python::dumps(all))) == expected + "True\n");
}

TEST_CASE("Python reads what C++ types are pickled as", "[interop][python]") {
    EVERY_PYTHON;
    using Row = std::tuple<int, float, std::optional<std::string>, std::vector<std::byte>>;
    const std::map<std::set<std::vector<int>>, std::vector<Row>> table{
        {{{1, 2}, {}}, {{1, 2.5f, "\u20ac", {std::byte{255}}}, {-70000, 3.0f, std::nullopt, {}}}}};
    const std::string print =
        "import pickle, sys; print(ascii(pickle.loads(bytes.fromhex(sys.argv[1]))))";
    const std::string text = run(python, print, hex_of(mp::python::dumps(table)));
    CHECK((text == "{frozenset({(1, 2), ()}): [(1, 2.5, '\\u20ac', b'\\xff'), (-70000, 3.0, None, "
                   "b'')]}\n" ||
           text == "{frozenset({(), (1, 2)}): [(1, 2.5, '\\u20ac', b'\\xff'), (-70000, 3.0, None, "
                   "b'')]}\n"));
    CHECK(run(python, print, hex_of(mp::python::dumps(mp::python::int128{-1} << 100))) ==
          "-1267650600228229401496703205376\n");
    CHECK(run(python, print, hex_of(mp::python::dumps(std::vector<bool>{true, false}))) ==
          "[True, False]\n");
    CHECK(run(python, print, hex_of(mp::python::dumps(std::pair('c', std::tuple())))) ==
          "('c', ())\n");
}

TEST_CASE("large pickles go to Python and back", "[interop][python]") {
    EVERY_PYTHON;
    const TemporaryFolder folder;
    std::map<std::string, std::vector<std::int64_t>> numbers;
    for (int i = 0; i < 1000; ++i)
        numbers["key" + std::to_string(i)].assign(100, std::int64_t{i} << 40);
    const std::pair both(numbers, std::string(100'000, 'x'));
    folder.write("here", mp::python::dumps(both));
    run(python, R"(
import os, pickle, sys
os.chdir(sys.argv[1])
with open('here', 'rb') as file: x = pickle.load(file)
assert x == ({'key%d' % i: [i << 40] * 100 for i in range(1000)}, 'x' * 100000)
for protocol in range(6):
    with open(str(protocol), 'wb') as file: pickle.dump(x, file, protocol)
)",
        folder.path);
    for (const char* const protocol : {"0", "1", "2", "3", "4", "5"}) {
        CHECK(mp::python::loads<std::remove_const_t<decltype(both)>>(folder.read(protocol)) ==
              both);
    }
}

TEST_CASE("what Python pickles with a name in it is refused", "[interop][python]") {
    EVERY_PYTHON;
    const std::string script = R"(
import collections, datetime, decimal, enum, os, pickle
class Evil:
    def __reduce__(self): return os.system, ('echo evil',)
class Plain: pass
class Colour(enum.Enum): red = 1
for x in (Evil(), [1, {'a': Evil()}], Plain(), Plain, Colour.red, 1j, range(3), ..., len, set, [bytes],
          datetime.date(2024, 1, 1), decimal.Decimal('1.5'), collections.OrderedDict(a=1),
          collections.deque([1]), ValueError('x'), slice(1), bytearray):
    for protocol in range(6): print(pickle.dumps(x, protocol).hex())
)";
    std::istringstream lines(run(python, script));
    int count = 0;
    for (std::string line; std::getline(lines, line); ++count) {
        CAPTURE(line);
        CHECK_THROWS_AS(mp::python::loads(from_hex(line)), mp::UnpicklingError);
    }
    CHECK(count == 18 * 6);
}

}  // namespace python_pickle_interop
