// SPDX-License-Identifier: BSL-1.0
//
// The reader of Python's pickles, opcode by opcode: what it reads, what it refuses by name, and what
// becomes of bytes that are truncated, corrupt or made to do harm.
#include <multiprocessing/python.hpp>

#include "support/catch.hpp"
#include "support/outcome.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include <pthread.h>

namespace mp = multiprocessing;

namespace python_pickle_tests {

namespace python = mp::python;
using Catch::Matchers::ContainsSubstring;
using python::dict;
using python::list;
using python::object;
using python::set;
using python::tuple;

std::string operator""_s(const char* text, std::size_t size) { return {text, size}; }

// As repr() writes it, so that what is read can be told from what is equal to it.
std::string read(const std::string& pickle) {
    return support::text_of(python::loads(pickle));
}

template <class T = object>
std::string complaint(const std::string& pickle) {
    try {
        static_cast<void>(python::loads<T>(pickle));
    } catch (const mp::UnpicklingError& error) {
        return error.what();
    }
    return "";
}

// What Python 3.11 writes, by protocol: the value is below.
const std::string samples[] = {
    "(dp0\nVa\np1\n(lp2\nI1\naF2.5\naNaI01\naL1099511627776L\naI-3\n"
    "asVb\np3\n(Vx\np4\nc_codecs\nencode\np5\n(Vy\377\np6\nVlatin1\n"
    "p7\ntp8\nRp9\nc__builtin__\nset\np10\n((lp11\nI1\natp12\nRp13\n"
    "c__builtin__\nfrozenset\np14\n((lp15\nI2\natp16\nRp17\nc__builtin__\n"
    "bytearray\np18\n(g5\n(Vz\np19\ng7\ntp20\nRp21\ntp22\nRp23\ntp24\n"
    "sVc\np25\nc__builtin__\nbytes\np26\n(tRp27\ns."_s,
    "}q\000(X\001\000\000\000aq\001]q\002(K\001G@\004\000\000\000\000\000\000NI01\n"
    "L1099511627776L\nJ\375\377\377\377eX\001\000\000\000bq\003(X\001\000\000\000xq\004c_code"
    "cs\nencode\nq\005(X\003\000\000\000y\303\277q\006X\006\000\000\000latin1q\007tq\010Rq"
    "\011c__builtin__\nset\nq\n(]q\013K\001atq\014Rq\015c__builtin__\n"
    "frozenset\nq\016(]q\017K\002atq\020Rq\021c__builtin__\nbytearray\n"
    "q\022(h\005(X\001\000\000\000zq\023h\007tq\024Rq\025tq\026Rq\027tq\030X\001\000\000\000c"
    "q\031c__builtin__\nbytes\nq\032)Rq\033u."_s,
    "\200\002}q\000(X\001\000\000\000aq\001]q\002(K\001G@\004\000\000\000\000\000\000N\210"
    "\212\006\000\000\000\000\000\001J\375\377\377\377eX\001\000\000\000bq\003(X\001\000\000"
    "\000xq\004c_codecs\nencode\nq\005X\003\000\000\000y\303\277q\006X\006\000\000\000latin1q"
    "\007\206q\010Rq\011c__builtin__\nset\nq\n]q\013K\001a\205q\014Rq\015c__builtin__\n"
    "frozenset\nq\016]q\017K\002a\205q\020Rq\021c__builtin__\nbytearray\n"
    "q\022h\005X\001\000\000\000zq\023h\007\206q\024Rq\025\205q\026Rq\027tq\030X\001\000\000"
    "\000cq\031c__builtin__\nbytes\nq\032)Rq\033u."_s,
    "\200\003}q\000(X\001\000\000\000aq\001]q\002(K\001G@\004\000\000\000\000\000\000N\210"
    "\212\006\000\000\000\000\000\001J\375\377\377\377eX\001\000\000\000bq\003(X\001\000\000"
    "\000xq\004C\002y\377q\005cbuiltins\nset\nq\006]q\007K\001a\205q\010Rq\011cbuiltins\n"
    "frozenset\nq\n]q\013K\002a\205q\014Rq\015cbuiltins\nbytearray\n"
    "q\016C\001zq\017\205q\020Rq\021tq\022X\001\000\000\000cq\023C\000q\024u."_s,
    "\200\004\225j\000\000\000\000\000\000\000}\224(\214\001a\224]\224(K\001G@\004\000\000"
    "\000\000\000\000N\210\212\006\000\000\000\000\000\001J\375\377\377\377e\214\001b\224("
    "\214\001x\224C\002y\377\224\217\224(K\001\220(K\002\221\224\214\010builtins\224\214\011b"
    "ytearray\224\223\224C\001z\224\205\224R\224t\224\214\001c\224C\000\224u."_s,
    "\200\005\225T\000\000\000\000\000\000\000}\224(\214\001a\224]\224(K\001G@\004\000\000"
    "\000\000\000\000N\210\212\006\000\000\000\000\000\001J\375\377\377\377e\214\001b\224("
    "\214\001x\224C\002y\377\224\217\224(K\001\220(K\002\221\224\226\001\000\000\000\000\000"
    "\000\000z\224t\224\214\001c\224C\000\224u."_s,
};
const char* const sample_in_python =
    "{'a': [1, 2.5, None, True, 1099511627776, -3], 'b': ('x', b'y\\xff', {1}, {2}, b'z'), "
    "'c': b''}";

// A pickle of protocol 4 in which each of some lists holds the one before it twice.
std::string laughs(int count, const std::string& innermost = "K\1") {
    std::string pickle = innermost + "\x94";
    for (int i = 0; i < count; ++i) {
        std::string index = "h" + std::string(1, static_cast<char>(i));
        pickle += "0](" + index + index + "e\x94";
    }
    return pickle + ".";
}

TEST_CASE("python::loads reads pickles of every protocol", "[python][pickle]") {
    using Row = std::tuple<std::string, mp::bytes, std::set<int>, std::set<int>, mp::bytes>;
    using Value = std::variant<list, Row, mp::bytes>;
    for (const std::string& sample : samples) {
        CHECK(read(sample) == sample_in_python);
        const auto map = python::loads<std::map<std::string, Value>>(sample);
        CHECK(std::get<Row>(map.at("b")) == Row("x", mp::bytes("y\xff"), {1}, {2}, mp::bytes("z")));
    }
    // Bytes in whatever holds them.
    const mp::bytes pickled("\x80\4K\1."_s);
    CHECK(python::loads<int>(pickled) == 1);
    CHECK(python::loads<int>(pickled.span()) == 1);
    CHECK(python::loads<int>(std::vector<std::byte>(pickled)) == 1);
    CHECK(python::loads<int>("K\1.") == 1);
    CHECK(python::loads<int>("K\1."_s) == 1);
}

TEST_CASE("the reader knows all opcodes for data", "[python][pickle]") {
    CHECK(read("N.") == "None");
    CHECK(read("\x88.") == "True");
    CHECK(read("\x89.") == "False");
    CHECK(read("I01\n.") == "True");
    CHECK(read("I00\n.") == "False");
    CHECK(read("I1\n.") == "1");
    CHECK(read("I-7\n.") == "-7");
    CHECK(read("I99999999999\n.") == "99999999999");
    CHECK(read("L5L\n.") == "5");
    CHECK(read("L5\n.") == "5");
    CHECK(read("L18446744073709551615L\n.") == "18446744073709551615");
    CHECK(read("L-9223372036854775808L\n.") == "-9223372036854775808");
    CHECK(read("J\xff\xff\xff\xff.") == "-1");
    CHECK(read("K\xff.") == "255");
    CHECK(read("M\xff\xff.") == "65535");
    CHECK(read("\x8a\0."_s) == "0");
    CHECK(read("\x8a\1\xff.") == "-1");
    CHECK(read("\x8a\2\xff\0."_s) == "255");
    CHECK(read("\x8a\7\xff\xff\xff\xff\xff\xff\xff.") == "-1");
    CHECK(read("\x8a\x08\0\0\0\0\0\0\0\x80."_s) == "-9223372036854775808");
    CHECK(read("\x8a\x09\0\0\0\0\0\0\0\x80\0."_s) == "9223372036854775808");
    CHECK(read("\x8a\x20\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0."_s) == "1");
    CHECK(read("\x8b\2\0\0\0\1\1."_s) == "257");
    CHECK(read("F1.5\n.") == "1.5");
    CHECK(read("F-inf\n.") == "-inf");
    CHECK(read("Fnan\n.") == "nan");
    CHECK(read("F1e+300\n.") == "1e+300");
    CHECK(read("F3\n.") == "3.0");
    CHECK(read("G\x3f\xf8\0\0\0\0\0\0."_s) == "1.5");
    CHECK(read("X\3\0\0\0\xe2\x82\xac."_s) == "'\u20ac'");
    CHECK(read("\x8c\1x.") == "'x'");
    CHECK(read("\x8d\1\0\0\0\0\0\0\0x."_s) == "'x'");
    CHECK(read("T\1\0\0\0x."_s) == "'x'");
    CHECK(read("U\1x.") == "'x'");
    CHECK(read("B\1\0\0\0\xff."_s) == "b'\\xff'");
    CHECK(read("C\1\xff.") == "b'\\xff'");
    CHECK(read("\x8e\1\0\0\0\0\0\0\0\xff."_s) == "b'\\xff'");
    CHECK(read("\x96\1\0\0\0\0\0\0\0\xff."_s) == "b'\\xff'");
    CHECK(read("].") == "[]");
    CHECK(read("]K\1aK\2a.") == "[1, 2]");
    CHECK(read("](K\1K\2e(e.") == "[1, 2]");
    CHECK(read("(K\1K\2l.") == "[1, 2]");
    CHECK(read(").") == "()");
    CHECK(read("(t.") == "()");
    CHECK(read("(K\1K\2K\3K\4t.") == "(1, 2, 3, 4)");
    CHECK(read("K\1\x85.") == "(1,)");
    CHECK(read("K\1K\2\x86.") == "(1, 2)");
    CHECK(read("K\1K\2K\3\x87.") == "(1, 2, 3)");
    CHECK(read("}.") == "{}");
    CHECK(read("}K\1K\2s.") == "{1: 2}");
    CHECK(read("}(K\1K\2K\3K\4u.") == "{1: 2, 3: 4}");
    CHECK(read("(K\1K\2d.") == "{1: 2}");
    CHECK(read("}(K\1K\2K\1K\3u.") == "{1: 3}");
    CHECK(read("\x8f.") == "set()");
    CHECK(read("\x8f(K\1K\2K\1\x90.") == "{1, 2}");
    CHECK(read("(K\1\x91.") == "{1}");
    CHECK(read("K\1K\2""0.") == "1");
    CHECK(read("K\1(K\2""00."_s) == "1");
    CHECK(read("K\1(K\2K\3""1.") == "1");
    CHECK(read("K\1""2\x86.") == "(1, 1)");
    CHECK(read("](K\1""2e.") == "[1, 1]");
    CHECK(read("K\1p0\n0g0\n.") == "1");
    CHECK(read("K\1q\7""0h\7.") == "1");
    CHECK(read("K\1r\xff\xff\xff\xff""0j\xff\xff\xff\xff."_s) == "1");
    CHECK(read("K\1p18446744073709551615\n0g18446744073709551615\n.") == "1");
    CHECK(read("K\1\x94K\2\x94""00h\0h\1\x86."_s) == "(1, 2)");
    CHECK(read("K\1q\5K\2\x94K\3q\0""000h\5h\1h\0\x87."_s) == "(1, 2, 3)");
    CHECK(read("K\1q\1q\0q\1K\2\x94"
               "0h\2\x86."_s) == "(1, 2)");
    CHECK(read("\x80\5\x95\2\0\0\0\0\0\0\0K\1."_s) == "1");
    CHECK(read("\x80\0K\1."_s) == "1");
}

TEST_CASE("the reader shares what the memo shares", "[python][pickle]") {
    // As Python has it, what is added to a list later is in it wherever it is.
    CHECK(read("](]q\0h\0K\1ae."_s) == "[[1], [1]]");
    CHECK(read("]q\0K\1ah\0\x86."_s) == "([1], [1])");
    CHECK(read("](]q\0h\0eh\0K\1a0."_s) == "[[1], [1]]");
    // A set that is made of a list is of what was in that then.
    CHECK(read("]q\0cbuiltins\nset\nh\0\x85Ra."_s) == "[set()]");
    CHECK(read("]q\0K\1acbuiltins\nset\nh\0\x85Rh\0K\2a\x86."_s) == "({1}, [1, 2])");
    CHECK(read("]q\0K\1acbuiltins\nset\nh\0\x85R(K\3\x90h\0\x86."_s) == "({1, 3}, [1])");
}

TEST_CASE("the reader knows the escapes of protocol 0", "[python][pickle]") {
    CHECK(read("Va\\u20ac\\U0001f600\xe9\n.") == "'a\u20ac\U0001F600\u00e9'");
    CHECK(read("V\\\\u0041\\u005c\\x\n.") == R"('\\\\u0041\\\\x')");
    CHECK(read("Vx\\\n.") == R"('x\\')");
    CHECK(read("S'a\\n\\x41\\101\\'\\\\\\q'\n.") == R"("a\nAA'\\\\q")");
    CHECK(read("S\"it's\"\n.") == "\"it's\"");
    CHECK(read("S'\\0'\n.") == "'\\x00'");
    CHECK_THAT(complaint("V\\u12\n."), ContainsSubstring("UNICODE at byte 0: an escape"));
    CHECK_THAT(complaint("V\\u12g4\n."), ContainsSubstring("an escape"));
    CHECK_THAT(complaint("V\\U00110000\n."), ContainsSubstring("an escape"));
    CHECK_THAT(complaint("V\\ud83d\n."), ContainsSubstring("half of a surrogate pair at byte 0"));
    CHECK_THAT(complaint("S'\\x4'\n."), ContainsSubstring("STRING at byte 0: an escape"));
    CHECK_THAT(complaint("S'\\\n."), ContainsSubstring("not in quotes"));
    CHECK_THAT(complaint("S'\\'\n."), ContainsSubstring("an escape"));
    CHECK_THAT(complaint("S'\n."), ContainsSubstring("not in quotes"));
    CHECK_THAT(complaint("S'a\"\n."), ContainsSubstring("not in quotes"));
    CHECK_THAT(complaint("S'\\xff'\n."), ContainsSubstring("a str of Python 2 that is not ASCII"));
    CHECK_THAT(complaint("U\1\xff."), ContainsSubstring("SHORT_BINSTRING at byte 0: a str of Python 2"));
}

TEST_CASE("the reader takes the calls that Python writes for sets and bytes for these",
          "[python][pickle]") {
    CHECK(read("cbuiltins\nset\n]K\1a\x85R.") == "{1}");
    CHECK(read("c__builtin__\nset\n(]tR.") == "set()");
    CHECK(read("\x8c\x08""builtins\x8c\x09""frozenset\x93]K\1a\x85R.") == "{1}");
    CHECK(read("cbuiltins\nbytes\n)R.") == "b''");
    CHECK(read("cbuiltins\nbytearray\n)R.") == "b''");
    CHECK(read("cbuiltins\nbytearray\nC\1x\x85R.") == "b'x'");
    CHECK(read("cbuiltins\nbytearray\n(\x8c\2\xc3\xa9\x8c\7latin-1tR.") == "b'\\xe9'");
    CHECK(read("c_codecs\nencode\n(\x8c\3x\xc2\x80\x8c\6latin1tR.") == "b'x\\x80'");
    CHECK(read("c_codecs\nencode\nq\1""0h\1\x8c\1x\x8c\6latin1\x86R.") == "b'x'");
}

TEST_CASE("the reader refuses by name what would run code", "[python][pickle]") {
    const std::vector<std::pair<std::string, std::string>> refusals{
        {"cos\nsystem\n.", "GLOBAL at byte 0: the pickle would import os.system"},
        {"\x80\2]cposix\nsystem\n(S'id'\ntR.", "GLOBAL at byte 3: the pickle would import posix.system"},
        {"\x8c\2os\x8c\6system\x93.", "STACK_GLOBAL at byte 12: the pickle would import os.system"},
        {"cbuiltins\neval\n.", "would import builtins.eval"},
        {"cbuiltins\nset.__class__\n.", "would import builtins.set.__class__"},
        {"cset\nbuiltins\n.", "would import set.builtins"},
        {"c__main__\n\x1b[31m\xff\n.", "would import __main__.?[31m?:"},
        {"c" + std::string(1000, 'x') + "\ny\n.", std::string(60, 'x') + "...."},
        {"(ios\nsystem\n.", "INST at byte 1: the pickle would import os.system"},
        {"K\1)R.", "REDUCE at byte 3: the pickle would call something"},
        {"cbuiltins\nset\nK\1R.", "REDUCE at byte 16: the pickle would call something"},
        {"cbuiltins\nset\n(K\1tR.", "would call set as no pickle of plain data does"},
        {"cbuiltins\nbytes\n(K\1tR.", "would call bytes as"},
        {"cbuiltins\nbytearray\n(K\1tR.", "would call bytearray as"},
        {"c_codecs\nencode\n(\x8c\1x\x8c\3hextR.", "would call _codecs.encode as"},
        {"c_codecs\nencode\n(\x8c\3\xe2\x82\xac\x8c\6latin1tR.", "would call _codecs.encode as"},
        {"c_codecs\nencode\n(\x8c\1xtR.", "would call _codecs.encode as"},
        {"N}b.", "BUILD at byte 2: the pickle would set the state of an object"},
        {"N)\x81.", "NEWOBJ at byte 2: the pickle would make an object"},
        {"N)}\x92.", "NEWOBJ_EX at byte 3: the pickle would make an object"},
        {"(No.", "OBJ at byte 2: the pickle would make an object"},
        {"\x82\1.", "EXT1 at byte 0: the pickle would import"},
        {"\x83\1\1.", "EXT2 at byte 0: the pickle would import"},
        {"\x84\1\1\1\1.", "EXT4 at byte 0: the pickle would import"},
        {"P1\n.", "PERSID at byte 0: the pickle would ask"},
        {"K\1Q.", "BINPERSID at byte 2: the pickle would ask"},
    };
    for (const auto& [pickle, expected] : refusals) {
        const std::string what = complaint(pickle);
        CHECK_THAT(what, ContainsSubstring(expected));
        CHECK_THAT(what, ContainsSubstring("reading runs no code"));
    }
    CHECK_THAT(complaint("\x97."), ContainsSubstring("NEXT_BUFFER at byte 0: a part of the object"));
    CHECK_THAT(complaint("N\x98."), ContainsSubstring("READONLY_BUFFER at byte 1: a part of"));
    CHECK_THAT(complaint("cbuiltins\nset\n."), ContainsSubstring("but there is a type"));
}

TEST_CASE("the reader says what is wrong with a corrupt pickle, and where", "[python][pickle]") {
    const std::vector<std::pair<std::string, std::string>> faults{
        {"", "the pickle ends without STOP after 0 bytes: it is truncated"},
        {"N", "the pickle ends without STOP after 1 bytes: it is truncated"},
        {".", "STOP at byte 0: there is too little on the stack"},
        {"K\1(.", "STOP at byte 3: there is too little on the stack"},
        {"N.xyz", "STOP at byte 1: the pickle ends here, and 3 bytes are left over"},
        {"\xff.", "opcode 0xff at byte 0: protocols 0 to 5 have no such opcode"},
        {"\n.", "opcode 0x0a at byte 0: protocols 0 to 5 have no such opcode"},
        {"\x80\6N.", "PROTO at byte 0: protocol 6 is not known"},
        {"\x95\xff\0\0\0\0\0\0\0N."_s, "FRAME at byte 0: the pickle is truncated or corrupt: 255"},
        {"J\1\2\3", "BININT at byte 0: the pickle is truncated or corrupt: 4 bytes are to follow, and 3 do"},
        {"X\0\0\0\x40x."_s, "BINUNICODE at byte 0: the pickle is truncated or corrupt: 1073741824 bytes"},
        {"B\xff\xff\xff\xffx.", "BINBYTES at byte 0: the pickle is truncated or corrupt: 4294967295"},
        {"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "BINBYTES8 at byte 0: the pickle is truncated"},
        {"\x8d\0\0\0\0\0\0\0\x80."_s, "BINUNICODE8 at byte 0: the pickle is truncated"},
        {"\x96\xff\xff\xff\x7f\0\0\0\0."_s, "BYTEARRAY8 at byte 0: the pickle is truncated"},
        {"\x8b\xff\xff\xff\xff.", "LONG4 at byte 0: the pickle is truncated"},
        {"I12", "INT at byte 0: the pickle ends within its argument"},
        {"Ix\n.", "INT at byte 0: its argument is no decimal number"},
        {"I\n.", "INT at byte 0: its argument is no decimal number"},
        {"I0x10\n.", "INT at byte 0: its argument is no decimal number"},
        {"L--1L\n.", "LONG at byte 0: its argument is no decimal number"},
        {"L99999999999999999999999x\n.", "LONG at byte 0: its argument is no decimal number"},
        {"F1.5x\n.", "FLOAT at byte 0: its argument is no number"},
        {"F\n.", "FLOAT at byte 0: its argument is no number"},
        {"\x8c\1\xff.", "SHORT_BINUNICODE at byte 0: the str is no UTF-8 from byte 0 on"},
        {"\x8c\4x\xed\xa0\x80.", "SHORT_BINUNICODE at byte 0: the str has half of a surrogate pair"},
        {"K\1a.", "APPEND at byte 2: there is too little on the stack"},
        {"NK\1a.", "APPEND at byte 3: there is no list to add to"},
        {"](K\1a.", "APPEND at byte 4: there is too little on the stack"},
        {"]K\1e.", "APPENDS at byte 3: there is no MARK"},
        {")(K\1e.", "APPENDS at byte 4: there is no list to add to"},
        {"(K\1e.", "APPENDS at byte 3: there is too little on the stack"},
        {"](K\1K\2u.", "SETITEMS at byte 6: there is no dict to add to"},
        {"}(K\1u.", "SETITEMS at byte 4: a key has no value"},
        {"(K\1d.", "DICT at byte 3: a key has no value"},
        {"}K\1s.", "SETITEM at byte 3: there is too little on the stack"},
        {"](K\1\x90.", "ADDITEMS at byte 4: there is no set to add to"},
        {"t.", "TUPLE at byte 0: there is no MARK"},
        {"K\1\x86.", "TUPLE2 at byte 2: there is too little on the stack"},
        {"0.", "POP at byte 0: there is too little on the stack"},
        {"1.", "POP_MARK at byte 0: there is no MARK"},
        {"2.", "DUP at byte 0: there is too little on the stack"},
        {"\x94.", "MEMOIZE at byte 0: there is too little on the stack"},
        {"h\0."_s, "BINGET at byte 0: nothing was put into the memo at 0"},
        {"Nq\1h\2.", "BINGET at byte 3: nothing was put into the memo at 2"},
        {"j\0\0\0\x80."_s, "LONG_BINGET at byte 0: nothing was put into the memo at 2147483648"},
        {"Np-1\n.", "PUT at byte 1: its index is no number"},
        {"gx\n.", "GET at byte 0: its index is no number"},
        {"K\1\x93.", "STACK_GLOBAL at byte 2: there is too little on the stack"},
        {"NK\1\x93.", "STACK_GLOBAL at byte 3: a module and a name must be str"},
        {"R.", "REDUCE at byte 0: there is too little on the stack"},
    };
    for (const auto& [pickle, expected] : faults) CHECK_THAT(complaint(pickle), ContainsSubstring(expected));
}

TEST_CASE("an int of any size is read as far as the C++ type goes", "[python][pickle]") {
    CHECK(bool(python::loads<python::int128>("L-170141183460469231731687303715884105728L\n.") ==
               python::integers::lowest<python::int128>));
    CHECK(bool(python::loads<python::uint128>("L340282366920938463463374607431768211455L\n.") ==
               ~python::uint128{0}));
    CHECK_THAT(complaint<python::int128>("L170141183460469231731687303715884105728L\n."),
               ContainsSubstring("there is an int of 128 bits"));
    CHECK_THAT(complaint("I340282366920938463463374607431768211456\n."),
               ContainsSubstring("there is an int of 39 digits"));
    CHECK_THAT(complaint("L" + std::string(100000, '9') + "L\n."),
               ContainsSubstring("there is an int of 100000 digits"));
    CHECK_THAT(complaint("\x8b\xe8\3\0\0"_s + std::string(999, '\0') + "\1."),
               ContainsSubstring("there is an int of 7993 bits"));
    CHECK_THAT(complaint("\x8a\x09\0\0\0\0\0\0\0\0\xff."_s), ContainsSubstring("an int of 64 bits"));
    CHECK_THAT(complaint("\x8a\x11"_s + std::string(16, '\0') + "\xff."),
               ContainsSubstring("an int of 128 bits"));
}

TEST_CASE("a pickle may be nested to a depth, and not without end", "[python][pickle]") {
    const auto nested = [](std::size_t levels) {
        return std::string(levels, ']') + std::string(levels - 1, 'a') + ".";
    };
    object deep = python::loads(nested(python::most_levels));
    CHECK(python::loads(python::dumps(deep)) == deep);
    CHECK_THAT(complaint(nested(python::most_levels + 1)), ContainsSubstring("nested deeper than 500"));
    deep = list{object(std::move(deep))};
    CHECK_THROWS_AS(python::dumps(deep), mp::PicklingError);
    // A million of them, by whatever opcode.
    constexpr std::size_t million = 1000000;
    const std::string deeper = "nested deeper than 500";
    CHECK_THAT(complaint(nested(million)), ContainsSubstring(deeper));
    CHECK_THAT(complaint("N" + std::string(million, '\x85') + "."), ContainsSubstring(deeper));
    CHECK_THAT(complaint(std::string(million, '(') + std::string(million, 't') + "."),
               ContainsSubstring(deeper));
    CHECK_THAT(complaint<std::vector<std::vector<int>>>(nested(million)), ContainsSubstring(deeper));
    CHECK(complaint(std::string(million, '(') + "N.").empty());
    CHECK(complaint(std::string(million, '(') + std::string(million, '0') + "N.").empty());
    // What is shared is as deep as where it is deepest, wherever it is met first.
    const std::string shared = "](" + nested(300).substr(0, 599) + "q\0"_s + std::string(300, ']') +
                               "h\0"_s + std::string(300, 'a') + "e.";
    CHECK_THAT(complaint(shared), ContainsSubstring(deeper));
}

TEST_CASE("a pickle may be nested as deep as the thread's stack allows", "[python][pickle]") {
    struct Answers {
        std::string pickle;
        object deep;
        std::string read;
        std::string written;
    } answers{std::string(python::most_levels, ']') + std::string(python::most_levels - 1, 'a') + ".",
              {}, "", ""};
    answers.deep = python::loads(answers.pickle);
    const auto run = [](void* argument) -> void* {
        auto& to = *static_cast<Answers*>(argument);
        to.read = complaint("]]a.") + complaint(to.pickle);
        try {
            static_cast<void>(python::dumps(to.deep));
        } catch (const mp::PicklingError& error) {
            to.written = error.what();
        }
        return nullptr;
    };
    ::pthread_attr_t attributes;
    ::pthread_attr_init(&attributes);
    REQUIRE(::pthread_attr_setstacksize(&attributes, 128 * 1024) == 0);  // musl's
    ::pthread_t thread;
    REQUIRE(::pthread_create(&thread, &attributes, run, &answers) == 0);
    ::pthread_join(thread, nullptr);
    ::pthread_attr_destroy(&attributes);
    CHECK_THAT(answers.read, ContainsSubstring("all that this thread's stack has room for"));
    CHECK_THAT(answers.written, ContainsSubstring("all that this thread's stack has room for"));
}

TEST_CASE("a pickle that holds itself is refused", "[python][pickle]") {
    const std::string self = "a container that is in itself";
    CHECK_THAT(complaint("]q\0h\0a."_s), ContainsSubstring(self));
    CHECK_THAT(complaint("]2a."), ContainsSubstring(self));
    CHECK_THAT(complaint("}q\0K\1h\0s."_s), ContainsSubstring(self));
    CHECK_THAT(complaint("]q\0(h\0h\0\x86q\1e0h\1."_s), ContainsSubstring(self));
    // As Python writes t = ([],); t[0].append(t).
    CHECK_THAT(complaint("((lp0\n(g0\ntp1\na00g1\n."), ContainsSubstring(self));
    CHECK_THAT(complaint("\x80\4]\x94h\0\x85\x94""a0h\1."_s), ContainsSubstring(self));
}

TEST_CASE("a pickle that refers to the same again and again is refused when it gets large",
          "[python][pickle]") {
    CHECK(python::loads(laughs(10)).size() == 2);
    CHECK_THAT(complaint(laughs(30)), ContainsSubstring("send what is shared once"));
    CHECK_THAT(complaint(laughs(127)), ContainsSubstring("send what is shared once"));
    CHECK_THAT(complaint<std::vector<int>>(laughs(127)), ContainsSubstring("send what is shared once"));
    // One long text, a million times.
    std::string texts = "X\0\0\1\0"_s + std::string(65536, 'x') + "q\0""0]("_s;
    for (int i = 0; i < 1000000; ++i) texts += "h\0"_s;
    CHECK_THAT(complaint(texts + "e."), ContainsSubstring("send what is shared once"));
    // What honest programs do: a long list of one short text, of one small tuple.
    std::string list_of_one = "](";
    for (int i = 0; i < 100000; ++i) list_of_one += "h\0"_s;
    CHECK(python::loads<std::vector<std::string>>("\x8c\x14" + std::string(20, 'x') + "q\0""0"_s +
                                                  list_of_one + "e.")
              .size() == 100000);
    CHECK(python::loads("K\1K\2K\3\x87q\0""0"_s + list_of_one + "e.").size() == 100000);
    // What is in sets in sets, which is hashed with each.
    std::string hashed = "(" + std::string(1000, 'N') + "tq\0" "0("_s;
    for (int i = 0; i < 100; ++i) hashed += "h\0"_s;
    hashed += "t";
    CHECK(complaint(hashed + std::string(1, '.')).empty());
    for (int i = 0; i < 10; ++i) hashed += "q\1""0(h\1\x91"_s;
    CHECK_THAT(complaint(hashed + "."), ContainsSubstring("send what is shared once"));
    // Sets that share the items of one list.
    std::string sets = "cbuiltins\nset\nq\0" "0]("_s + std::string(10000, 'N') + "eq\1" "0](";
    for (int i = 0; i < 10000; ++i) sets += "h\0h\1\x85R"_s;
    CHECK_THAT(complaint(sets + "e."), ContainsSubstring("send what is shared once"));
    // Text that is encoded again and again.
    std::string encodings = "X\0\0\1\0"_s + std::string(65534, 'x') + "\xc3\xbfq\0""0"
                            "c_codecs\nencode\nq\1""0X\6\0\0\0latin1q\2""0]("_s;
    for (int i = 0; i < 100000; ++i) encodings += "h\1h\0h\2\x86R0"_s;
    CHECK_THAT(complaint(encodings + "e."), ContainsSubstring("would call _codecs.encode as no"));
}

TEST_CASE("the keys of a pickle must be such as can be hashed", "[python][pickle]") {
    CHECK_THAT(complaint("}](K\1eK\2s."), ContainsSubstring("at [key ...], but there is a list of 1"));
    CHECK_THAT(complaint("\x8f(]\x85\x90."), ContainsSubstring("at [item 0], but there is a tuple of 1"));
    CHECK_THAT(complaint("\x8f(}\x90."), ContainsSubstring("something that can be hashed"));
    CHECK(read("\x8f((K\1\x91\x90.") == "{{1}}");
    CHECK(read("}(K\1\x91K\2s.") == "{{1}: 2}");
    // Not nested deeply: each level would be hashed again with the next.
    const auto nested = [](std::size_t levels) {
        return std::string(levels, '(') + "K\1" + std::string(levels, '\x91') + ".";
    };
    CHECK(complaint(nested(17)).empty());
    CHECK_THAT(complaint(nested(18)), ContainsSubstring("nothing nested deeply"));
}

TEST_CASE("a truncated pickle is refused, wherever it is cut", "[python][pickle]") {
    for (const std::string& sample : samples) {
        for (std::size_t size = 0; size < sample.size(); ++size)
            CHECK_FALSE(complaint(sample.substr(0, size)).empty());
    }
}

TEST_CASE("a damaged pickle is refused or read, never worse", "[python][pickle][fuzz]") {
    std::mt19937 random_bits(20240501);
    int refused = 0;
    int read_all_the_same = 0;
    for (int round = 0; round < 20000; ++round) {
        std::string damaged = samples[random_bits() % std::size(samples)];
        const std::string& other = samples[random_bits() % std::size(samples)];
        for (auto times = 1 + random_bits() % 3; times != 0; --times) {
            const std::size_t at = random_bits() % damaged.size();
            const std::size_t length = random_bits() % std::min<std::size_t>(damaged.size() - at, 8);
            switch (random_bits() % 4) {
            case 0: damaged[at] = static_cast<char>(random_bits()); break;
            case 1: damaged.erase(at, length); break;
            case 2: damaged.insert(at, damaged.substr(at, length)); break;
            default: damaged.insert(at, other.substr(random_bits() % other.size(), length + 1)); break;
            }
        }
        INFO(mp::shared_memory::ShareableItem(mp::bytes(damaged)));
        const std::string what = complaint(damaged);
        ++(what.empty() ? read_all_the_same : refused);
        if (!what.empty()) REQUIRE_THAT(what, Catch::Matchers::StartsWith("python::loads: "));
    }
    CHECK(refused > 1000);
    CHECK(read_all_the_same > 1000);
}

}  // namespace python_pickle_tests
