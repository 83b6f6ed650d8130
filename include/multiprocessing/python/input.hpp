// SPDX-License-Identifier: BSL-1.0
//
// The bytes of a pickle as they are read: no further than they go, and with complaints that say at
// which opcode.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/python/opcodes.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

namespace multiprocessing::python::machine {

class Input {
public:
    /// The bytes stay where they are: what is taken refers to them.
    explicit Input(std::string_view bytes) noexcept
        : begin_(bytes.data()), next_(begin_), end_(begin_ + bytes.size()), opcode_(begin_) {}

    [[nodiscard]] std::size_t size() const noexcept {
        return static_cast<std::size_t>(end_ - begin_);
    }
    [[nodiscard]] std::size_t left() const noexcept {
        return static_cast<std::size_t>(end_ - next_);
    }
    [[nodiscard]] unsigned char take_opcode() {
        if (next_ == end_) {
            throw UnpicklingError("python::loads: the pickle ends without STOP after " +
                                  std::to_string(size()) + " bytes: it is truncated");
        }
        opcode_ = next_;
        return static_cast<unsigned char>(*next_++);
    }

    // The argument of the opcode.
    [[nodiscard]] std::string_view take(std::uint64_t length) {
        check_left(length);
        const auto count = static_cast<std::size_t>(length);
        return {std::exchange(next_, next_ + count), count};
    }
    void check_left(std::uint64_t length) const {
        if (length > left()) fail_truncated(length);
    }
    /// A number as pickles hold them: the lowest byte first.
    template <class Number>
    [[nodiscard]] Number take_number() {
        static_assert(std::endian::native == std::endian::little);
        Number number;
        std::memcpy(&number, take(sizeof number).data(), sizeof number);
        return number;
    }
    /// What comes after its own length, which is a Length.
    template <class Length>
    [[nodiscard]] std::string_view take_counted() {
        return take(take_number<Length>());
    }
    /// Up to the end of the line, which is not part of it.
    [[nodiscard]] std::string_view take_line() {
        const void* const found = left() == 0 ? nullptr : std::memchr(next_, '\n', left());
        if (found == nullptr) fail("the pickle ends within its argument: it is truncated");
        const auto length = static_cast<std::size_t>(static_cast<const char*>(found) - next_);
        const std::string_view line(next_, length);
        next_ += length + 1;
        return line;
    }

    /// Throws UnpicklingError, which names the opcode and where it is.
    [[noreturn]] void fail(const std::string& why) const {
        const auto code = static_cast<unsigned char>(*opcode_);
        std::string name(name_of(code));
        if (name.empty()) {
            constexpr char digits[] = "0123456789abcdef";
            name = std::string("opcode 0x") + digits[code / 16] + digits[code % 16];
        }
        throw UnpicklingError("python::loads: " + name + " at byte " +
                              std::to_string(opcode_ - begin_) + ": " + why);
    }

private:
    [[noreturn]] void fail_truncated(std::uint64_t length) const {
        fail("the pickle is truncated or corrupt: " + std::to_string(length) +
             " bytes are to follow, and " + std::to_string(left()) + " do");
    }

    const char* begin_;
    const char* next_;
    const char* end_;
    const char* opcode_;
};

}  // namespace multiprocessing::python::machine
