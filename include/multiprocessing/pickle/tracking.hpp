// SPDX-License-Identifier: BSL-1.0
//
// Which objects of a message have been written or read already, so that what two pointers share is
// one object at the other end too, cycles included. An object is known by the position of its first
// byte in the message.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/object_type.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <typeindex>
#include <typeinfo>
#include <unordered_map>
#include <utility>
#include <vector>

namespace multiprocessing::pickle {

/// Objects that foreign serialisation code keeps in an archive (`get_helper` of Boost's archives).
class Helpers {
public:
    template <class Helper>
    [[nodiscard]] Helper& find(const void* id) {
        for (auto& [key, helper] : helpers_)
            if (key == id) return *static_cast<Helper*>(helper.get());
        auto made = std::make_shared<Helper>();
        helpers_.emplace_back(id, made);
        return *made;
    }

private:
    std::vector<std::pair<const void*, std::shared_ptr<void>>> helpers_;
};

/// What an output archive remembers, from the first pointer on.
struct Written {
    struct Key {
        const void* object;
        std::type_index type;
        bool operator==(const Key&) const = default;
    };
    struct Hash {
        std::size_t operator()(const Key& key) const noexcept {
            return std::hash<const void*>()(key.object) * 31 + key.type.hash_code();
        }
    };
    /// Positions in the message.
    std::unordered_map<Key, std::uint64_t, Hash> objects;
    std::vector<const ObjectType*> registered;
    Helpers helpers;
};

/// Who will delete an object that was read.
enum class Owner : std::uint8_t { none, value, raw, unique, shared };

/// What an input archive remembers, from the first pointer on.
class Read {
public:
    struct Object {
        std::uint64_t position;
        void* address;
        const ObjectType* type;
        Owner owner;
        std::shared_ptr<void> shared;
    };

    /// Objects come in the order of their positions.
    Object& add(std::uint64_t position, void* address, const ObjectType& type, Owner owner) {
        return objects_.emplace_back(Object{position, address, &type, owner, nullptr});
    }
    [[nodiscard]] std::size_t size() const noexcept { return objects_.size(); }
    Object& operator[](std::size_t index) noexcept { return objects_[index]; }
    [[nodiscard]] Object& at_position(std::uint64_t position) {
        const auto found = std::lower_bound(
            objects_.begin(), objects_.end(), position,
            [](const Object& object, std::uint64_t wanted) { return object.position < wanted; });
        if (found == objects_.end() || found->position != position)
            throw UnpicklingError("a pointer in the message refers to no object of the message");
        return *found;
    }
    /// The objects from the `first` on that lay within `size` bytes from `from` are moved to `to`.
    void relocate(std::size_t first, const void* from, std::size_t size, const void* to) noexcept {
        for (std::size_t i = objects_.size(); i-- > first;)
            if (objects_[i].owner == Owner::value) move(objects_[i], from, size, to);
    }
    /// The same for the objects read last, as far as they lie there.
    void relocate_last(const void* from, std::size_t size, const void* to) noexcept {
        for (std::size_t i = objects_.size(); i-- > 0;)
            if (objects_[i].owner == Owner::value && !move(objects_[i], from, size, to)) break;
    }

    std::vector<const ObjectType*> registered;
    Helpers helpers;

private:
    static bool move(Object& object, const void* from, std::size_t size, const void* to) noexcept {
        const auto at = reinterpret_cast<std::uintptr_t>(object.address);
        const auto begin = reinterpret_cast<std::uintptr_t>(from);
        if (at < begin || at >= begin + size) return false;
        object.address = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(to) + at - begin);
        return true;
    }

    std::vector<Object> objects_;
};

}  // namespace multiprocessing::pickle
