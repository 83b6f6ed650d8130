// SPDX-License-Identifier: BSL-1.0
//
// Pointers: what they point to travels with them, once however many pointers there are to it, and
// as what it is when it is an exported class behind a pointer to its base.
#pragma once

#include <multiprocessing/pickle/object_type.hpp>
#include <multiprocessing/pickle/value.hpp>

#include <boost/archive/detail/iserializer.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <utility>

namespace multiprocessing::pickle {

namespace pointers {

/// What the first byte of a pointer says.
enum class Tag : std::uint8_t { null, object, reference, exported, registered };

template <class T>
inline constexpr bool is_user_class = HasSerialize<T> && !HasCodec<T> && !Bitwise<T>;

template <class T>
inline constexpr bool is_tracked = !is_user_class<T> ||
                                   boost::serialization::tracking_level<T>::value !=
                                       boost::serialization::track_never;

template <class T>
void save_object(OArchive& archive, const void* object) {
    const T& value = *static_cast<const T*>(object);
    if constexpr (is_user_class<T>) {
        objects::save_version<T>(archive);
        boost::serialization::save_construct_data_adl(archive, std::addressof(value),
                                                      objects::version<T>);
        objects::save_content(archive, value);
    } else {
        save_value(archive, value);
    }
}

template <class T>
unsigned construct(IArchive& archive, void* memory) {
    if constexpr (is_user_class<T>) {
        const unsigned found = objects::load_version<T>(archive);
        boost::serialization::load_construct_data_adl(archive, static_cast<T*>(memory), found);
        return found;
    } else if constexpr (is_made_empty<T>) {
        ::new (memory) T{};
        return 0;
    } else {
        boost::serialization::load_construct_data_adl(archive, static_cast<T*>(memory), 0u);
        return 0;
    }
}

template <class T>
void load_object(IArchive& archive, void* object, unsigned found) {
    if constexpr (is_user_class<T>) {
        objects::load_content(archive, *static_cast<T*>(object), found);
    } else {
        load_value(archive, *static_cast<T*>(object));
    }
}

template <class T>
concept OwnNew = requires { T::operator new(sizeof(T)); };

template <class T>
void* allocate() {
    if constexpr (OwnNew<T>) {
        return T::operator new(sizeof(T));
    } else {
        return std::allocator<T>().allocate(1);
    }
}

template <class T>
void deallocate(void* memory) noexcept {
    if constexpr (OwnNew<T>) {
        boost::archive::detail::heap_allocation<T>::has_new_operator::invoke_delete(
            static_cast<T*>(memory));
    } else {
        std::allocator<T>().deallocate(static_cast<T*>(memory), 1);
    }
}

template <class T>
std::shared_ptr<void> own(void* object) {
    // As the type it is: its enable_shared_from_this learns of it.
    return std::shared_ptr<T>(static_cast<T*>(object));
}

/// Memory or an object that nobody owns yet.
struct Orphan {
    const ObjectType& type;
    void* memory;
    bool constructed = false;

    ~Orphan() {
        if (memory == nullptr) return;
        if (constructed) {
            type.destroy(memory);
        } else {
            type.deallocate(memory);
        }
    }
};

[[noreturn]] inline void throw_not_owned() {
    throw UnpicklingError("two pointers in the message claim to own one object in ways that "
                          "exclude each other");
}

/// Lets one more pointer own, or only know, an object that was read before.
inline void claim(Read::Object& object, Owner owner) {
    if (owner == Owner::raw) return;
    if (object.owner == Owner::raw) {
        if (owner == Owner::shared) object.shared = object.type->own(object.address);
        object.owner = owner;
    } else if (owner != Owner::shared || object.owner != Owner::shared) {
        throw_not_owned();
    }
}

template <class T>
[[nodiscard]] const ObjectType& type_of_new(IArchive& archive, Tag tag) {
    switch (tag) {
    case Tag::object:
        if constexpr (!std::is_abstract_v<T>) return object_type<T>();
        break;
    case Tag::exported: {
        const auto size = archive.get<std::uint8_t>();
        const std::string_view name(reinterpret_cast<const char*>(archive.take(size)), size);
        if (const auto* type = ExportedTypes::find(name)) return *type;
        throw UnpicklingError("the bytes hold an object of class \"" + std::string(name) +
                              "\", which is not exported in this program (BOOST_CLASS_EXPORT)");
    }
    case Tag::registered: {
        const auto index = archive.get<std::uint8_t>();
        if (index < archive.read().registered.size()) return *archive.read().registered[index];
        break;
    }
    default: break;
    }
    throw UnpicklingError("the bytes hold no pointer where one is expected");
}

template <class T>
[[nodiscard]] T* as_pointer_to(const Read::Object& object) {
    const void* found = nullptr;
    if constexpr (std::is_polymorphic_v<T>) {
        const ObjectType& type = *object.type;
        found = *type.type == typeid(T)
                    ? object.address
                    : boost::serialization::void_upcast(type.boost_type(), boost_type_of<T>(),
                                                        object.address);
    } else if (*object.type->type == typeid(T)) {
        found = object.address;
    }
    if (found == nullptr)
        throw UnpicklingError("a pointer to " + type_name<T>() + " in the message refers to a " +
                              type_name(*object.type->type));
    return static_cast<T*>(const_cast<void*>(found));
}

/// Makes the object whose bytes come next.
template <class T>
[[nodiscard]] T* make(IArchive& archive, std::uint64_t position, const ObjectType& type,
                      Owner owner, std::shared_ptr<void>* shared) {
    Orphan orphan{type, type.allocate()};
    void* const address = orphan.memory;
    const std::size_t index = archive.objects();
    // Before its content, which may refer back to it.
    archive.read().add(position, address, type, Owner::none);
    const unsigned version = type.construct(archive, address);
    orphan.constructed = true;
    // Before its content too: an exported class may be of another family altogether.
    T* const pointer = as_pointer_to<T>(archive.read()[index]);
    if (owner == Owner::shared) {
        orphan.memory = nullptr;
        *shared = archive.read()[index].shared = type.own(address);
    }
    archive.read()[index].owner = owner;
    type.load(archive, address, version);
    orphan.memory = nullptr;
    return pointer;
}

}  // namespace pointers

template <class T>
const ObjectType& object_type() {
    using namespace pointers;
    static const ObjectType type{
        &typeid(T),
        &boost_type_of<T>,
        &save_object<T>,
        &allocate<T>,
        &deallocate<T>,
        &construct<T>,
        &load_object<T>,
        [](void* object) noexcept { delete static_cast<T*>(object); },
        &own<T>};
    return type;
}

namespace pointers {

/// A pointer to a base class whose object is of a derived one.
template <class T>
void save_derived(OArchive& archive, const T* pointer, const void* whole) {
    const std::type_info& type = typeid(*pointer);
    const ObjectType* found = nullptr;
    if (const auto* entry = ExportedTypes::find(type)) {
        archive.put(Tag::exported);
        archive.put(static_cast<std::uint8_t>(entry->name.size()));
        archive.save_binary(entry->name.data(), entry->name.size());
        found = entry->type;
    } else {
        const auto& registered = archive.written().registered;
        for (std::size_t i = 0; i < registered.size() && i < 256 && found == nullptr; ++i) {
            if (*registered[i]->type != type) continue;
            archive.put(Tag::registered);
            archive.put(static_cast<std::uint8_t>(i));
            found = registered[i];
        }
    }
    if (found == nullptr)
        throw PicklingError("an object of class " + type_name(type) + " behind a pointer to " +
                            type_name<T>() + " cannot be pickled: put BOOST_CLASS_EXPORT(" +
                            type_name(type) + ") into one source file");
    if (boost::serialization::void_upcast(found->boost_type(), boost_type_of<T>(), whole) ==
        nullptr)
        throw PicklingError("class " + type_name(type) + " does not say that it derives from " +
                            type_name<T>() + ": let its serialize() write its base by "
                            "boost::serialization::base_object<" + type_name<T>() + ">(*this)");
    found->save(archive, whole);
}

}  // namespace pointers

template <class T>
void save_pointer(OArchive& archive, const T* pointer) {
    using pointers::Tag;
    using Object = std::remove_cv_t<T>;
    if (pointer == nullptr) return archive.put(Tag::null);
    archive.check_depth();
    const void* whole = pointer;
    const std::type_info* type = &typeid(Object);
    if constexpr (std::is_polymorphic_v<T>) {
        whole = dynamic_cast<const void*>(pointer);
        type = &typeid(*pointer);
    }
    if constexpr (!std::is_abstract_v<Object>) static_cast<void>(BehindPointers<Object>::set);
    if constexpr (pointers::is_tracked<Object>) {
        const auto [known, is_new] =
            archive.written().objects.try_emplace({whole, *type}, archive.position());
        if (!is_new) {
            archive.put(Tag::reference);
            return archive.put(known->second);
        }
    }
    if constexpr (std::is_polymorphic_v<T>) {
        if (*type != typeid(Object)) return pointers::save_derived(archive, pointer, whole);
    }
    if constexpr (!std::is_abstract_v<Object>) {
        archive.put(Tag::object);
        pointers::save_object<Object>(archive, pointer);
    }
}

/// Reads a pointer that will own its object as `owner` says; `shared` takes the ownership of a
/// shared one.
template <class T>
T* load_pointer(IArchive& archive, Owner owner, std::shared_ptr<void>* shared) {
    using pointers::Tag;
    using Object = std::remove_cv_t<T>;
    archive.check_depth();
    const std::uint64_t position = archive.position();
    const auto tag = archive.get<Tag>();
    if (tag == Tag::null) return nullptr;
    if (tag == Tag::reference) {
        auto& object = archive.read().at_position(archive.get<std::uint64_t>());
        Object* const pointer = pointers::as_pointer_to<Object>(object);
        pointers::claim(object, owner);
        if (shared != nullptr) *shared = object.shared;
        return pointer;
    }
    const ObjectType& type = pointers::type_of_new<Object>(archive, tag);
    return pointers::make<Object>(archive, position, type, owner, shared);
}

}  // namespace multiprocessing::pickle
