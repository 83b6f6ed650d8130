// SPDX-License-Identifier: BSL-1.0
//
// Python's list, tuple, dict and set of objects of any of its types.
#pragma once

#include <multiprocessing/python/table.hpp>

#include <initializer_list>
#include <ostream>
#include <utility>
#include <vector>

namespace multiprocessing::python {

class object;
class list;
class tuple;
class dict;
class set;

namespace tables {

// Defined where object is complete.
[[nodiscard]] bool equal(const tuple& a, const tuple& b);
[[nodiscard]] bool equal(const dict& a, const dict& b);
[[nodiscard]] bool equal(const set& a, const set& b);
std::ostream& write(std::ostream& out, const list& items);
std::ostream& write(std::ostream& out, const tuple& items);
std::ostream& write(std::ostream& out, const dict& entries);
std::ostream& write(std::ostream& out, const set& elements);
std::ostream& write(std::ostream& out, const object& value);

}  // namespace tables

/// *Python*: `list`. With the interface of std::vector. In braces it is a list of what is in them;
/// one of a single other list is `list{object(other)}`, for compilers differ about `list{other}`.
class list : public std::vector<object> {
public:
    using std::vector<object>::vector;
    using std::vector<object>::operator=;

    friend std::ostream& operator<<(std::ostream& out, const list& items) {
        return tables::write(out, items);
    }
};

/// *Python*: `tuple`; equal to no list. With the interface of std::vector.
class tuple : public std::vector<object> {
public:
    using std::vector<object>::vector;
    using std::vector<object>::operator=;

    friend bool operator==(const tuple& a, const tuple& b) { return tables::equal(a, b); }
    friend bool operator==(const tuple&, const list&) noexcept { return false; }
    friend std::ostream& operator<<(std::ostream& out, const tuple& items) {
        return tables::write(out, items);
    }
};

/// *Python*: `dict`. Its entries are pairs of objects in the order in which their keys first came.
///
///     mp::python::dict d{{"a", 1}, {2.5, mp::python::list{"x", mp::None}}};
///     d["b"] = true;
///     for (const auto& [key, value] : d) std::cout << key << ": " << value << '\n';
///
/// *Throws*: ValueError for a key that cannot be hashed: a list or dict, or a tuple with one in it.
/// A set can be, for it stands for a frozenset too.
class dict : public tables::Table<std::pair<object, object>> {
public:
    using mapped_type = object;

    dict() noexcept = default;
    /// Of two equal keys the first stays and has the value of the last.
    dict(std::initializer_list<value_type> entries);

    /// *Throws* KeyError.
    [[nodiscard]] const object& at(const object& key) const;
    [[nodiscard]] object& at(const object& key);
    /// Its value, which is None if the key is new.
    [[nodiscard]] object& operator[](object key);
    /// Where it is, and whether the key is new.
    std::pair<const_iterator, bool> insert_or_assign(object key, object value);

    /// In any order, as in Python.
    friend bool operator==(const dict& a, const dict& b) { return tables::equal(a, b); }
    friend std::ostream& operator<<(std::ostream& out, const dict& entries) {
        return tables::write(out, entries);
    }
};

/// *Python*: `set`, and `frozenset`. Its elements are in the order in which they came. *Throws* as
/// dict does.
class set : public tables::Table<object> {
public:
    set() noexcept = default;
    set(std::initializer_list<object> elements);

    /// Where it is, and whether it is new.
    std::pair<const_iterator, bool> insert(object element);

    friend bool operator==(const set& a, const set& b) { return tables::equal(a, b); }
    friend std::ostream& operator<<(std::ostream& out, const set& elements) {
        return tables::write(out, elements);
    }
};

}  // namespace multiprocessing::python
