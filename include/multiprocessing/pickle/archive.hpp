// SPDX-License-Identifier: BSL-1.0
//
// The archives: Boost.Serialization's interface (a class's `serialize` cannot tell them from
// Boost's own) over raw memory. They are a pointer or two, made at no cost: no stream, no locale,
// no table until the first pointer comes. Reading trusts nothing.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/stack.hpp>
#include <multiprocessing/pickle/buffer.hpp>
#include <multiprocessing/pickle/cargo.hpp>
#include <multiprocessing/pickle/concepts.hpp>
#include <multiprocessing/pickle/tracking.hpp>

#include <boost/archive/basic_archive.hpp>
#include <boost/mpl/bool.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

namespace multiprocessing::pickle {

template <class T>
void save_value(OArchive& archive, const T& value);
template <class T>
void load_value(IArchive& archive, T& value);

/// Writes to the end of a Buffer. Positions in the message count from where the buffer ended when
/// the archive was made: it is read back by one IArchive over the same bytes.
class OArchive {
public:
    using is_saving = boost::mpl::true_;
    using is_loading = boost::mpl::false_;

    explicit OArchive(Buffer& buffer, Cargo* cargo = nullptr) noexcept
        : buffer_(buffer), cargo_(cargo), begin_(buffer.size()) {}
    OArchive(const OArchive&) = delete;
    OArchive& operator=(const OArchive&) = delete;

    template <class T>
    OArchive& operator<<(const T& value) {
        save_value(*this, value);
        return *this;
    }
    template <class T>
    OArchive& operator&(const T& value) {
        return *this << value;
    }
    void save_binary(const void* from, std::size_t size) { buffer_.append(from, size); }

    /// The count of what follows.
    void save_size(std::size_t size) { put(static_cast<std::uint64_t>(size)); }
    /// A number of fixed size.
    template <class T>
    void put(T number) {
        static_assert(std::is_trivially_copyable_v<T>);
        std::memcpy(buffer_.grow(sizeof number), &number, sizeof number);
    }

    /// What travels beside the bytes. Throws PicklingError where nothing can.
    [[nodiscard]] Cargo& cargo() const {
        if (cargo_ == nullptr)
            throw PicklingError("an object in shared memory (a queue, a lock, a shared value) or a "
                                "connection travels between the processes of one program only, "
                                "not as bytes that anybody may keep");
        return *cargo_;
    }
    [[nodiscard]] bool has_cargo() const noexcept { return cargo_ != nullptr; }
    [[nodiscard]] Buffer& buffer() noexcept { return buffer_; }
    [[nodiscard]] std::uint64_t position() const noexcept { return buffer_.size() - begin_; }
    [[nodiscard]] Written& written() {
        if (!written_) written_ = std::make_unique<Written>();
        return *written_;
    }
    void check_depth() const {
        if (!os::stack_has_room(stack_reserve))
            throw PicklingError("the object is nested too deeply to be pickled on this stack");
    }

    // The rest of what Boost's archives offer to a `serialize`.
    template <class T>
    void register_type(const T* = nullptr) {
        written().registered.push_back(&object_type<T>());
    }
    template <class Helper>
    Helper& get_helper(void* id = nullptr) {
        return written().helpers.find<Helper>(id);
    }
    [[nodiscard]] boost::archive::library_version_type get_library_version() const {
        return boost::archive::BOOST_ARCHIVE_VERSION();
    }
    [[nodiscard]] unsigned get_flags() const noexcept { return boost::archive::no_header; }
    void end_preamble() const noexcept {}

    // Left over when no more than this: for the frames of one object and of error handling.
    static constexpr std::size_t stack_reserve = 128 * 1024;

private:
    Buffer& buffer_;
    Cargo* cargo_;
    std::size_t begin_;
    std::unique_ptr<Written> written_;
};

/// Reads from memory. Whatever the bytes are: it never reads past their end, never takes memory
/// that they do not justify, never makes an object of another type than it was asked for; then it
/// throws UnpicklingError.
class IArchive {
public:
    using is_saving = boost::mpl::false_;
    using is_loading = boost::mpl::true_;

    explicit IArchive(std::span<const std::byte> bytes, Cargo* cargo = nullptr) noexcept
        : begin_(bytes.data()), next_(begin_), end_(begin_ + bytes.size()), cargo_(cargo) {}
    IArchive(const IArchive&) = delete;
    IArchive& operator=(const IArchive&) = delete;

    template <class T>
    IArchive& operator>>(T&& value) {
        load_value(*this, value);
        return *this;
    }
    template <class T>
    IArchive& operator&(T&& value) {
        return *this >> value;
    }
    void load_binary(void* to, std::size_t size) {
        const std::byte* const from = take(size);
        if (size != 0) std::memcpy(to, from, size);
    }

    /// The next `size` bytes.
    [[nodiscard]] const std::byte* take(std::size_t size) {
        if (size > remaining()) throw_truncated();
        return std::exchange(next_, next_ + size);
    }
    template <class T>
    [[nodiscard]] T get() {
        static_assert(std::is_trivially_copyable_v<T>);
        T number;
        std::memcpy(&number, take(sizeof number), sizeof number);
        return number;
    }
    /// A count of elements each of which is at least `element` bytes of what remains.
    [[nodiscard]] std::size_t load_size(std::size_t element = 1) {
        const auto size = get<std::uint64_t>();
        if (size > remaining() / element) throw_truncated();
        return static_cast<std::size_t>(size);
    }

    [[nodiscard]] std::size_t remaining() const noexcept {
        return static_cast<std::size_t>(end_ - next_);
    }
    [[nodiscard]] Cargo& cargo() const {
        if (cargo_ == nullptr)
            throw UnpicklingError("the bytes hold a shared object or a connection, which cannot be "
                                  "had from bytes alone");
        return *cargo_;
    }
    [[nodiscard]] bool has_cargo() const noexcept { return cargo_ != nullptr; }
    [[nodiscard]] std::uint64_t position() const noexcept {
        return static_cast<std::uint64_t>(next_ - begin_);
    }
    [[nodiscard]] Read& read() {
        if (!read_) read_ = std::make_unique<Read>();
        return *read_;
    }
    void check_depth() const {
        if (!os::stack_has_room(OArchive::stack_reserve))
            throw UnpicklingError("the bytes are nested too deeply to be unpickled on this stack");
    }
    /// How many objects were read that pointers may refer to.
    [[nodiscard]] std::size_t objects() const noexcept { return read_ ? read_->size() : 0; }
    /// Tells the archive that a value read from `from` now lives at `to`.
    template <class T>
    void relocated(std::size_t objects_before, const T& from, const T& to) noexcept {
        if (objects() != objects_before)
            read_->relocate(objects_before, std::addressof(from), sizeof(T), std::addressof(to));
    }
    /// Set once code of a user's `serialize` ran: what it makes of corrupt bytes is not known.
    bool ran_user_code = false;

    // The rest of what Boost's archives offer to a `serialize`.
    template <class T>
    void register_type(const T* = nullptr) {
        read().registered.push_back(&object_type<T>());
    }
    template <class Helper>
    Helper& get_helper(void* id = nullptr) {
        return read().helpers.find<Helper>(id);
    }
    template <class T>
    void reset_object_address(const T* to, const T* from) noexcept {
        if (read_) read_->relocate_last(from, sizeof(T), to);
    }
    void reset_object_address(const void*, const void*) noexcept {}
    [[nodiscard]] boost::archive::library_version_type get_library_version() const {
        return boost::archive::BOOST_ARCHIVE_VERSION();
    }
    [[nodiscard]] unsigned get_flags() const noexcept { return boost::archive::no_header; }
    void delete_created_pointers() const noexcept {}

private:
    [[noreturn]] void throw_truncated() const {
        throw UnpicklingError("the bytes end in the middle of an object: they are truncated, "
                              "corrupt or of another type (" +
                              std::to_string(remaining()) + " bytes are left)");
    }

    const std::byte* begin_;
    const std::byte* next_;
    const std::byte* end_;
    Cargo* cargo_;
    std::unique_ptr<Read> read_;
};

}  // namespace multiprocessing::pickle
