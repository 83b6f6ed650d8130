// SPDX-License-Identifier: BSL-1.0
//
// Containers for a `SharedHeap`: Boost's, with an allocator of ours. There is nothing like them in
// Python.
#pragma once

#include <multiprocessing/shm/object_heap.hpp>

#include <boost/container/deque.hpp>
#include <boost/container/list.hpp>
#include <boost/container/map.hpp>
#include <boost/container/scoped_allocator.hpp>
#include <boost/container/set.hpp>
#include <boost/container/string.hpp>
#include <boost/container/vector.hpp>
#include <boost/functional/hash.hpp>
#include <boost/interprocess/offset_ptr.hpp>
#include <boost/unordered_map.hpp>
#include <boost/unordered_set.hpp>

#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>

namespace multiprocessing::shared {

/// Takes memory from a SharedHeap, or, made without one, from this process's own: so a
/// `shared::string` on the stack is a string like any other, and what is put into a container of a
/// heap is copied into that heap.
template <class T>
class HeapAllocator {
public:
    using value_type = T;
    using pointer = boost::interprocess::offset_ptr<T>;
    using const_pointer = boost::interprocess::offset_ptr<const T>;
    using void_pointer = boost::interprocess::offset_ptr<void>;
    using const_void_pointer = boost::interprocess::offset_ptr<const void>;
    using reference = T&;
    using const_reference = const T&;
    using size_type = std::size_t;
    using difference_type = std::ptrdiff_t;
    template <class U>
    struct rebind {
        using other = HeapAllocator<U>;
    };

    HeapAllocator() noexcept = default;
    explicit HeapAllocator(shm::ObjectHeap& heap) noexcept : heap_(&heap) {}
    template <class U>
    HeapAllocator(const HeapAllocator<U>& other) noexcept : heap_(other.heap()) {}

    /// *Throws* std::bad_alloc.
    [[nodiscard]] pointer allocate(size_type count) {
        if (count > max_size()) throw std::bad_alloc();
        if (heap_ == nullptr) return std::allocator<T>().allocate(count);
        return static_cast<T*>(heap_->allocate(count * sizeof(T), alignof(T)));
    }
    void deallocate(const pointer& memory, size_type count) noexcept {
        if (heap_ == nullptr) {
            std::allocator<T>().deallocate(boost::interprocess::ipcdetail::to_raw_pointer(memory),
                                           count);
        } else {
            heap_->deallocate(boost::interprocess::ipcdetail::to_raw_pointer(memory));
        }
    }
    [[nodiscard]] size_type max_size() const noexcept {
        return std::numeric_limits<difference_type>::max() / sizeof(T);
    }
    [[nodiscard]] shm::ObjectHeap* heap() const noexcept { return heap_.get(); }

    friend bool operator==(const HeapAllocator& a, const HeapAllocator& b) noexcept {
        return a.heap() == b.heap();
    }
    friend bool operator!=(const HeapAllocator& a, const HeapAllocator& b) noexcept {
        return !(a == b);
    }

private:
    boost::interprocess::offset_ptr<shm::ObjectHeap> heap_;
};

/// Hands itself on to what is in the container: the strings of a vector are in the vector's heap.
template <class T = std::byte>
using allocator = boost::container::scoped_allocator_adaptor<HeapAllocator<T>>;

using string = boost::container::basic_string<char, std::char_traits<char>, HeapAllocator<char>>;
template <class T>
using vector = boost::container::vector<T, allocator<T>>;
template <class T>
using deque = boost::container::deque<T, allocator<T>>;
template <class T>
using list = boost::container::list<T, allocator<T>>;
template <class T, class Compare = std::less<T>>
using set = boost::container::set<T, Compare, allocator<T>>;
template <class Key, class T, class Compare = std::less<Key>>
using map = boost::container::map<Key, T, Compare, allocator<std::pair<const Key, T>>>;
template <class T, class Hash = boost::hash<T>, class Equal = std::equal_to<T>>
using unordered_set = boost::unordered_set<T, Hash, Equal, allocator<T>>;
template <class Key, class T, class Hash = boost::hash<Key>, class Equal = std::equal_to<Key>>
using unordered_map = boost::unordered_map<Key, T, Hash, Equal, allocator<std::pair<const Key, T>>>;

}  // namespace multiprocessing::shared
