// SPDX-License-Identifier: BSL-1.0
//
// Pointers to functions and to members travel: a function is where it is in its module, and the
// module is known by its build id. No registration, no macro; both processes run the same build.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/module.hpp>
#include <multiprocessing/pickle/value.hpp>

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

namespace multiprocessing::pickle {

/// The place of a function. Throws PicklingError where it is in no module (made at run time).
[[nodiscard]] inline os::CodeAddress code_address(const void* function) {
    const os::CodeAddress code = os::locate(function);
    if (code == os::CodeAddress{})
        throw PicklingError("a pointer to a function that is neither in the program nor in one of "
                            "its shared libraries cannot travel to another process");
    return code;
}

/// The function at a place. Throws UnpicklingError when this process has no such code.
[[nodiscard]] inline const void* code_at(os::CodeAddress code) {
    const void* const function = os::resolve(code);
    if (function == nullptr)
        throw UnpicklingError("the message names a function that was compiled into another "
                              "program, another build of this one, or a library that is not "
                              "loaded here");
    return function;
}

// Functions: all zeros is the null pointer.
template <class F>
    requires std::is_function_v<F>
struct Codec<F*> {
    static constexpr bool picklable = true;
    static void save(OArchive& archive, F* function) {
        archive.put(function == nullptr ? os::CodeAddress{}
                                        : code_address(reinterpret_cast<const void*>(function)));
    }
    static void load(IArchive& archive, F*& function) {
        const auto code = archive.get<os::CodeAddress>();
        function = code == os::CodeAddress{}
                       ? nullptr
                       : reinterpret_cast<F*>(const_cast<void*>(code_at(code)));
    }
};

// Member functions: one that is virtual is a place in the class's table, the same in each process.
template <class M, class C>
    requires std::is_function_v<M>
struct Codec<M C::*> {
    using Pointer = M C::*;
    static_assert(sizeof(Pointer) == sizeof(os::MemberPointer));
    static constexpr bool picklable = true;
    static void save(OArchive& archive, Pointer pointer) {
        os::MemberPointer member;
        std::memcpy(&member, &pointer, sizeof member);
        os::CodeAddress code{0, member.function};
        if (!member.is_virtual() && member.function != 0)
            code = code_address(reinterpret_cast<const void*>(member.function));
        archive.put(code);
        archive.put(static_cast<std::int64_t>(member.adjustment));
    }
    static void load(IArchive& archive, Pointer& pointer) {
        const auto code = archive.get<os::CodeAddress>();
        os::MemberPointer member{static_cast<std::uintptr_t>(code.offset),
                                 static_cast<std::ptrdiff_t>(archive.get<std::int64_t>())};
        if (code.module != 0) {
            member.function = reinterpret_cast<std::uintptr_t>(code_at(code));
        } else if (!member.is_virtual() && member.function != 0) {
            throw UnpicklingError("the bytes hold no pointer to a member function");
        }
        std::memcpy(static_cast<void*>(&pointer), &member, sizeof member);
    }
};

// Members: a distance.
template <class M, class C>
    requires(!std::is_function_v<M>)
struct Codec<M C::*> {
    static constexpr bool picklable = true;
    static void save(OArchive& archive, M C::*pointer) { archive.put(pointer); }
    static void load(IArchive& archive, M C::*&pointer) {
        archive.load_binary(&pointer, sizeof pointer);
    }
};

}  // namespace multiprocessing::pickle
