// SPDX-License-Identifier: BSL-1.0
//
// Python at the other end: its pickle format, read and written without Python. What a Python
// process sends through a `multiprocessing.connection` is received as C++ objects, and the other
// way round.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/connection.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/buffer.hpp>
#include <multiprocessing/python/access.hpp>
#include <multiprocessing/python/bounds.hpp>
#include <multiprocessing/python/containers.hpp>
#include <multiprocessing/python/convert.hpp>
#include <multiprocessing/python/equality.hpp>
#include <multiprocessing/python/machine.hpp>
#include <multiprocessing/python/object.hpp>
#include <multiprocessing/python/repr.hpp>
#include <multiprocessing/python/shape.hpp>
#include <multiprocessing/python/value.hpp>
#include <multiprocessing/python/view.hpp>
#include <multiprocessing/python/writer.hpp>
#include <multiprocessing/runtime/object_message.hpp>

#include <cstddef>
#include <span>
#include <string_view>
#include <type_traits>

namespace multiprocessing {

namespace python {

/// The object as Python's pickle, which `pickle.loads` makes into None, a bool, an int, a float, a
/// str, bytes, a list, a tuple, a dict or a set, nested at will.
///
///     std::map<std::string, std::vector<double>> series{{"x", {1, 2.5}}};
///     conn.send_bytes(mp::python::dumps(series));  // or conn.send_python(series)
///
/// A range becomes a list; a pair or tuple a tuple; a map a dict; an empty optional None; a char or
/// string a str, which must be UTF-8; mp::bytes and any std::byte bytes. In what Python must hash,
/// a key or an element of a set, a list is a tuple and a set a frozenset.
///
/// *Python*: `pickle.dumps(x, protocol=4)`.
/// *Throws*: PicklingError for text that is not UTF-8 and for an object nested deeper than 500
/// containers in one another.
template <class T>
[[nodiscard]] bytes dumps(T&& object);

/// What Python pickled, in any protocol from 0 to 5, as a T: by default a python::object, which
/// holds whatever it is.
///
///     auto series = mp::python::loads<std::map<std::string, std::vector<double>>>(pickled);
///
/// It is strict: a bool is no int, an int is a double only if that holds it exactly, a std::array,
/// pair or tuple has as many items as it says; of a std::variant it is the first alternative that
/// fits exactly. Nothing is ever imported or called: a pickle that asks for it is refused.
///
/// *Throws*: UnpicklingError for bytes that are truncated, corrupt or nested deeper than 500
/// containers, and for what is no T: where it is, and what it is. Whoever made the bytes, time and
/// memory are bounded by their number; but keys can be chosen so that a std::unordered_map is slow,
/// as they cannot for a std::map or python::dict.
template <class T = object>
[[nodiscard]] T loads(std::span<const std::byte> pickled);
template <class T = object>
[[nodiscard]] T loads(std::string_view pickled);

}  // namespace python

// -------------------------------------------------------------------------------------------------

template <class T>
bytes python::dumps(T&& object) {
    static_assert(
        Dumpable<T>,
        "Python's pickle has no such type: python::dumps takes None, bool, numbers, char, text, "
        "mp::bytes, ranges, pair, tuple, map, set, optional and variant of these, and "
        "python::object; a key of a map and an element of a set must not hold a map, and "
        "multimap and multiset have no answer in Python");
    if constexpr (Dumpable<T>) {
        pickle::Scratch scratch;
        writing::Writer(*scratch).write_pickle(object);
        return bytes(scratch->span());
    }
}

template <class T>
T python::loads(std::string_view pickled) {
    static_assert(
        Loadable<T>,
        "Python's pickle has no such type: python::loads makes None, bool, numbers, char, "
        "std::string, mp::bytes, the containers of std, pair, tuple, optional and variant of "
        "these, and python::object; no references, views or pointers");
    if constexpr (Loadable<T>) {
        machine::Arena arena(8 * pickled.size());
        const machine::Value value = machine::parse(pickled, arena);
        machine::Bounds::check(value, pickled.size());
        T made{};
        Mismatch why;
        if (!conversion::convert(value, made, why))
            throw UnpicklingError("python::loads: " + why.text());
        return made;
    }
}
template <class T>
T python::loads(std::span<const std::byte> pickled) {
    return loads<T>(
        std::string_view(reinterpret_cast<const char*>(pickled.data()), pickled.size()));
}

template <class T>
void Connection::send_python(const T& object) const {
    send_bytes(python::dumps(object));
}
template <class T>
T Connection::recv_python() const {
    const bytes message = recv_bytes();
    try {
        return python::loads<T>(message);
    } catch (const UnpicklingError&) {
        runtime::check_for_challenge(message);
        throw;
    }
}

}  // namespace multiprocessing
