// SPDX-License-Identifier: BSL-1.0
//
// The opcodes of Python's pickle protocols 0 to 5 under the names of its module `pickle`.
#pragma once

#include <string_view>

namespace multiprocessing::python::machine {

struct Opcode {
    unsigned char code;
    std::string_view name;
};

inline constexpr Opcode opcodes[] = {
    // Protocols 0 and 1.
    {'(', "MARK"},
    {'.', "STOP"},
    {'0', "POP"},
    {'1', "POP_MARK"},
    {'2', "DUP"},
    {'F', "FLOAT"},
    {'I', "INT"},
    {'J', "BININT"},
    {'K', "BININT1"},
    {'L', "LONG"},
    {'M', "BININT2"},
    {'N', "NONE"},
    {'P', "PERSID"},
    {'Q', "BINPERSID"},
    {'R', "REDUCE"},
    {'S', "STRING"},
    {'T', "BINSTRING"},
    {'U', "SHORT_BINSTRING"},
    {'V', "UNICODE"},
    {'X', "BINUNICODE"},
    {'a', "APPEND"},
    {'b', "BUILD"},
    {'c', "GLOBAL"},
    {'d', "DICT"},
    {'}', "EMPTY_DICT"},
    {'e', "APPENDS"},
    {'g', "GET"},
    {'h', "BINGET"},
    {'i', "INST"},
    {'j', "LONG_BINGET"},
    {'l', "LIST"},
    {']', "EMPTY_LIST"},
    {'o', "OBJ"},
    {'p', "PUT"},
    {'q', "BINPUT"},
    {'r', "LONG_BINPUT"},
    {'s', "SETITEM"},
    {'t', "TUPLE"},
    {')', "EMPTY_TUPLE"},
    {'u', "SETITEMS"},
    {'G', "BINFLOAT"},
    // Protocol 2.
    {0x80, "PROTO"},
    {0x81, "NEWOBJ"},
    {0x82, "EXT1"},
    {0x83, "EXT2"},
    {0x84, "EXT4"},
    {0x85, "TUPLE1"},
    {0x86, "TUPLE2"},
    {0x87, "TUPLE3"},
    {0x88, "NEWTRUE"},
    {0x89, "NEWFALSE"},
    {0x8a, "LONG1"},
    {0x8b, "LONG4"},
    // Protocol 3.
    {'B', "BINBYTES"},
    {'C', "SHORT_BINBYTES"},
    // Protocol 4.
    {0x8c, "SHORT_BINUNICODE"},
    {0x8d, "BINUNICODE8"},
    {0x8e, "BINBYTES8"},
    {0x8f, "EMPTY_SET"},
    {0x90, "ADDITEMS"},
    {0x91, "FROZENSET"},
    {0x92, "NEWOBJ_EX"},
    {0x93, "STACK_GLOBAL"},
    {0x94, "MEMOIZE"},
    {0x95, "FRAME"},
    // Protocol 5.
    {0x96, "BYTEARRAY8"},
    {0x97, "NEXT_BUFFER"},
    {0x98, "READONLY_BUFFER"},
};

/// Empty for what is none.
[[nodiscard]] constexpr std::string_view name_of(unsigned char code) noexcept {
    for (const Opcode& opcode : opcodes)
        if (opcode.code == code) return opcode.name;
    return {};
}

/// The code of that name; one that there is not does not compile.
[[nodiscard]] consteval unsigned char op(std::string_view name) {
    for (const Opcode& opcode : opcodes)
        if (opcode.name == name) return opcode.code;
    throw "there is no such opcode";
}

/// Why an opcode is not carried out.
[[nodiscard]] inline const char* refusal_of(unsigned char code) noexcept {
    switch (code) {
    case op("REDUCE"): return "the pickle would call something: reading runs no code";
    case op("NEWOBJ"):
    case op("NEWOBJ_EX"):
    case op("OBJ"): return "the pickle would make an object of a class: reading runs no code";
    case op("BUILD"): return "the pickle would set the state of an object: reading runs no code";
    case op("EXT1"):
    case op("EXT2"):
    case op("EXT4"):
        return "the pickle would import what copyreg has registered: reading runs no code";
    case op("PERSID"):
    case op("BINPERSID"):
        return "the pickle would ask its reader for an object: reading runs no code";
    case op("NEXT_BUFFER"):
    case op("READONLY_BUFFER"):
        return "a part of the object is outside of the pickle: pickle it without buffer_callback";
    default: return "protocols 0 to 5 have no such opcode: the bytes are corrupt, or no pickle";
    }
}

}  // namespace multiprocessing::python::machine
