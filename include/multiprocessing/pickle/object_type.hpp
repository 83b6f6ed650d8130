// SPDX-License-Identifier: BSL-1.0
//
// What pointers need to know about the type of the object they point to: how to write it, make it,
// fill it and own it when only its name is known. BOOST_CLASS_EXPORT fills the table of names for
// our archives as it does for Boost's own.
#pragma once

#include <multiprocessing/os/fork.hpp>

#include <boost/serialization/export.hpp>
#include <boost/serialization/extended_type_info.hpp>
#include <boost/serialization/singleton.hpp>
#include <boost/serialization/type_info_implementation.hpp>
#include <boost/serialization/void_cast.hpp>

#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <type_traits>
#include <typeindex>
#include <typeinfo>
#include <unordered_map>

namespace multiprocessing::pickle {

class OArchive;
class IArchive;

/// A type of objects behind pointers.
struct ObjectType {
    const std::type_info* type;
    const boost::serialization::extended_type_info& (*boost_type)();
    void (*save)(OArchive&, const void* object);
    void* (*allocate)();
    void (*deallocate)(void*) noexcept;
    /// Constructs in place what `load` then fills; the result is the class's version.
    unsigned (*construct)(IArchive&, void* memory);
    void (*load)(IArchive&, void* object, unsigned version);
    void (*destroy)(void*) noexcept;
    std::shared_ptr<void> (*own)(void*);
};

template <class T>
[[nodiscard]] const ObjectType& object_type();
/// The same of an object that is not ours to make or delete: its type alone.
template <class T>
[[nodiscard]] const ObjectType& value_type();

/// Is T written through a pointer anywhere in this program? Then its objects that are written by
/// value are remembered, for a pointer to them may follow.
template <class T>
struct BehindPointers {
    static inline bool flag = false;
    static inline const bool set = (flag = true);
};

template <class T>
[[nodiscard]] const boost::serialization::extended_type_info& boost_type_of() {
    return boost::serialization::singleton<
        typename boost::serialization::type_info_implementation<T>::type>::get_const_instance();
}

template <class T>
const ObjectType& value_type() {
    static const ObjectType type{&typeid(T), &boost_type_of<T>, nullptr, nullptr, nullptr,
                                 nullptr,    nullptr,           nullptr, nullptr};
    return type;
}

/// The exported classes, by name and by type. Filled by static initialisers, also those of
/// libraries that are loaded later.
class ExportedTypes {
public:
    struct Entry {
        std::string_view name;
        const ObjectType* type;
    };

    static bool add(const char* name, const ObjectType& type) {
        ExportedTypes& all = instance();
        const std::scoped_lock lock(all.mutex_);
        const auto& entry = all.by_type_.emplace(*type.type, Entry{name, &type}).first->second;
        all.by_name_.emplace(entry.name, &type);
        return true;
    }
    /// Null when nobody exported it.
    [[nodiscard]] static const ObjectType* find(std::string_view name) {
        ExportedTypes& all = instance();
        const std::scoped_lock lock(all.mutex_);
        const auto found = all.by_name_.find(name);
        return found == all.by_name_.end() ? nullptr : found->second;
    }
    [[nodiscard]] static const Entry* find(const std::type_info& type) {
        ExportedTypes& all = instance();
        const std::scoped_lock lock(all.mutex_);
        const auto found = all.by_type_.find(type);
        return found == all.by_type_.end() ? nullptr : &found->second;
    }

private:
    // Never destroyed: destructors of statics may still pickle.
    static ExportedTypes& instance() {
        static constinit os::Lazy<ExportedTypes> all;
        return all.get([] { return new ExportedTypes; });
    }

    os::ForkAwareMutex mutex_;
    std::unordered_map<std::type_index, Entry> by_type_;
    std::map<std::string_view, const ObjectType*> by_name_;
};

template <class T>
struct Export {
    static inline const bool done =
        BehindPointers<T>::set &&
        ExportedTypes::add(boost::serialization::guid<T>(), object_type<T>());
};

}  // namespace multiprocessing::pickle

// BOOST_CLASS_EXPORT(T) names this for every registered archive and T; by default it would ask for
// Boost's own serializers, which need Boost's own archive underneath.
template <class T>
struct boost::archive::detail::ptr_serialization_support<multiprocessing::pickle::OArchive, T> {
    static void instantiate() { static_cast<void>(multiprocessing::pickle::Export<T>::done); }
    using x = instantiate_function<&ptr_serialization_support::instantiate>;
};
template <class T>
struct boost::archive::detail::ptr_serialization_support<multiprocessing::pickle::IArchive, T> {
    static void instantiate() { static_cast<void>(multiprocessing::pickle::Export<T>::done); }
    using x = instantiate_function<&ptr_serialization_support::instantiate>;
};

BOOST_SERIALIZATION_REGISTER_ARCHIVE(multiprocessing::pickle::OArchive)
BOOST_SERIALIZATION_REGISTER_ARCHIVE(multiprocessing::pickle::IArchive)
