// SPDX-License-Identifier: BSL-1.0
//
// Where the machine keeps values: its stack, with marks in it, and its memo.
#pragma once

#include <multiprocessing/os/memory.hpp>
#include <multiprocessing/python/input.hpp>
#include <multiprocessing/python/value.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace multiprocessing::python::machine {

/// What lies under the last mark is out of reach.
class Stack {
public:
    explicit Stack(const Input& input) : input_(input) { values_.reserve(32); }

    void push(Value value) { values_.push_back(value); }
    [[nodiscard]] Value& top() { return last(1).front(); }
    Value pop() {
        const Value value = top();
        values_.pop_back();
        return value;
    }
    /// That many of the topmost, the lowest first.
    [[nodiscard]] std::span<Value> last(std::size_t count) {
        if (values_.size() - floor_ < count) input_.fail("there is too little on the stack");
        return std::span(values_).last(count);
    }
    void drop(std::size_t count) noexcept {
        values_.erase(values_.end() - static_cast<std::ptrdiff_t>(count), values_.end());
    }

    void mark() {
        marks_.push_back(floor_);
        floor_ = values_.size();
    }
    /// The topmost value, or the mark if that is above it.
    void drop_top() {
        if (floor_ == values_.size() && !marks_.empty()) {
            unmark();
        } else {
            pop();
        }
    }
    /// Takes the last mark away; returns how many values were above it.
    std::size_t unmark() {
        if (marks_.empty()) input_.fail("there is no MARK");
        const std::size_t count = values_.size() - floor_;
        floor_ = marks_.back();
        marks_.pop_back();
        return count;
    }

private:
    const Input& input_;
    std::vector<Value> values_;
    std::size_t floor_ = 0;
    std::vector<std::size_t> marks_;  // the floors under this one
};

/// Python numbers what it remembers from 0 on; a number may be any, and costs no more.
class Memo {
public:
    explicit Memo(const Input& input) : input_(input) {}

    void put(std::uint64_t index, Value value) {
        if (index == dense_.size() && sparse_.empty()) {
            if (dense_.empty()) make_room();
            dense_.push_back(value);
        } else if (index < dense_.size()) {
            dense_[static_cast<std::size_t>(index)] = value;
        } else {
            sparse_.insert_or_assign(index, value);
        }
    }
    void append(Value value) { put(dense_.size() + sparse_.size(), value); }
    [[nodiscard]] Value get(std::uint64_t index) const {
        if (index < dense_.size()) return dense_[static_cast<std::size_t>(index)];
        const auto found = sparse_.find(index);
        if (found == sparse_.end()) {
            input_.fail("nothing was put into the memo at " + std::to_string(index));
        }
        return found->second;
    }

private:
    // Most pickles have less than an object in eight bytes. What is not touched costs nothing.
    void make_room() {
        dense_.reserve(input_.size() / 8 + 8);
        os::before_filling(dense_.data(), dense_.capacity() * sizeof(Value));
    }

    const Input& input_;
    std::vector<Value> dense_;
    // No hash table: whoever makes the pickle chooses the numbers.
    std::map<std::uint64_t, Value> sparse_;
};

}  // namespace multiprocessing::python::machine
