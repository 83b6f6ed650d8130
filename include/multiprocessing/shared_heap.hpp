// SPDX-License-Identifier: BSL-1.0
//
// `SharedHeap`: containers in shared memory, found by name, that several processes change in place.
// There is nothing like it in Python, where a manager's lists and dicts do the same by messages.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/handle.hpp>
#include <multiprocessing/pickle/type_name.hpp>
#include <multiprocessing/shared_containers.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/shm/object_heap.hpp>
#include <multiprocessing/synchronize/lock.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace multiprocessing {

class SharedHeap;

/// An object of a SharedHeap, or none. A handle: copies are the same object, in whatever process
/// they are, and keep the heap.
///
///     v->push_back(1);                                  // with its lock held, for this one call
///     v.synchronized([](auto& all) { all.clear(); });   // for more than one
///     std::lock_guard guard(v);                         // or for as long as one likes:
///     for (int x : *v) …
///
/// `for (int x : *v)` and `std::sort(v->begin(), v->end())` by themselves do not hold the lock while
/// they run: others may change the object under them.
///
/// *Throws* (`->`, `*`, synchronized): AssertionError where there is none; ValueError after
/// `heap.destroy()`; BrokenHeapError after a death, as follows.
/// *If a peer dies* that has the object's lock, the object may be half changed, and whoever looked
/// into it might never come back. So from then on it is broken, and says so to everybody. Who knows
/// it to be whole, by a look at `get()`, says so by `mark_consistent()`; else destroy() it, which
/// leaves what memory it had to the heap, and make another. Who reads without the lock is not
/// protected.
template <class T>
class SharedPtr : public Acquirable<SharedPtr<T>> {
public:
    /// The object with its lock held.
    class Access {
    public:
        explicit Access(const SharedPtr& object) : object_(object) { object_.enter(); }
        Access(const Access&) = delete;
        Access& operator=(const Access&) = delete;
        ~Access() { object_.lock_.unlock(); }
        [[nodiscard]] T* operator->() const noexcept { return object_.get(); }
        [[nodiscard]] T& operator*() const noexcept { return *object_.get(); }

    private:
        const SharedPtr& object_;
    };

    /// None.
    SharedPtr() noexcept = default;
    // Not to be moved from: a handle is one of the same object for as long as it lives.
    SharedPtr(const SharedPtr&) = default;
    SharedPtr& operator=(const SharedPtr&) = default;
    ~SharedPtr() = default;

    /// For one call, with the lock held. *Blocks* while others have it.
    [[nodiscard]] Access operator->() const { return Access(*this); }
    /// Without the lock, for who holds it or needs none.
    [[nodiscard]] T& operator*() const {
        check();
        return *get();
    }
    /// Runs `f(T&)` with the lock held and returns what it returns.
    template <std::invocable<T&> F>
    decltype(auto) synchronized(F&& f) const {
        const Access access(*this);
        return std::invoke(std::forward<F>(f), *access);
    }
    /// Its lock, an RLock of its own. *Throws* AssertionError where there is no object.
    [[nodiscard]] const AnyLock& get_lock() const {
        expect_one();
        return lock_;
    }
    /// Lets go of its lock. What `acquire()` and `lock()` have taken they have taken whatever state
    /// the object is in: `*v` says which. *Throws* as an RLock, AssertionError where there is none.
    void release() const { get_lock().release(); }
    /// Where it is, whatever state it is in; null where there is none.
    [[nodiscard]] T* get() const noexcept {
        return head_ ? std::launder(reinterpret_cast<T*>(head_->object())) : nullptr;
    }
    /// Is there an object? Not any more after `heap.destroy()`.
    [[nodiscard]] explicit operator bool() const noexcept {
        return head_ && head_->state.load(std::memory_order_acquire) != shm::ObjectHead::destroyed;
    }
    /// Has a process died while it had the lock?
    [[nodiscard]] bool broken() const { return state() == shm::ObjectHead::broken; }
    /// It has been looked at, and is whole: it may be used again. *Throws* AssertionError unless the
    /// calling thread has the lock.
    void mark_consistent() const;

    /// The same object?
    friend bool operator==(const SharedPtr& a, const SharedPtr& b) noexcept {
        return a.head_ == b.head_;
    }

    using travels_as_handle = void;

private:
    friend struct pickle::HandleAccess;
    friend class SharedHeap;
    friend class Acquirable<SharedPtr>;
    bool acquire_until(os::Deadline deadline) const {
        expect_one();
        if (!lock_.acquire_until(deadline)) return false;
        static_cast<void>(state());  // for good, if it comes from the dead
        return true;
    }
    struct Lock : AnyLock {
        Lock() noexcept : AnyLock(pickle::Unread{}) {}
        explicit Lock(const shm::Ref& object) noexcept : AnyLock(object) {}
    };

    explicit SharedPtr(pickle::Unread) noexcept {}
    SharedPtr(const shm::Shared<shm::ObjectHead>& head,
              const shm::Shared<shm::ObjectHeap>& heap) noexcept
        : heap_(heap), head_(head), lock_(head) {}
    void save_handle(pickle::OArchive& archive) const;
    void load_handle(pickle::IArchive& archive);

    /// While somebody has its lock from the dead it is broken; for good, once that one has asked.
    [[nodiscard]] std::uint32_t state() const {
        expect_one();
        std::uint32_t state = head_->state.load(std::memory_order_acquire);
        if (state != shm::ObjectHead::whole || !lock_.abandoned()) return state;
        // Others leave it as it is: it may be found to be whole at this moment.
        if (lock_.lock_->is_mine())
            head_->state.compare_exchange_strong(state, shm::ObjectHead::broken);
        return shm::ObjectHead::broken;
    }
    void expect_one() const {
        if (!head_)
            throw AssertionError("this SharedPtr is empty: there was no object of that name");
    }
    void check() const;
    void enter() const;

    shm::Shared<shm::ObjectHeap> heap_;
    shm::Shared<shm::ObjectHead> head_;
    Lock lock_;
};

/// Shared memory for containers, which grows as they do. The objects in it are made and found by
/// name.
///
///     mp::SharedHeap heap(1 << 20);
///     auto v = heap.construct<mp::shared::vector<int>>("numbers", {1, 2, 3});
///     mp::Process p([](mp::SharedHeap h) {
///         h.find<mp::shared::vector<int>>("numbers")->push_back(4);
///     }, heap);
///
/// What can be in it: the containers of `mp::shared`, of each other too; what a Value can be; and
/// classes made of these, which say so by an `allocator_type` and take one as their constructors'
/// last argument:
///
///     struct Person {
///         using allocator_type = mp::shared::allocator<>;
///         mp::shared::string name;
///         int age = 0;
///         explicit Person(const allocator_type& a) : name(a) {}
///         Person(const char* n, int age, const allocator_type& a) : name(n, a), age(age) {}
///         Person(const Person& other, const allocator_type& a)  // so that containers can copy it
///             : name(other.name, a), age(other.age) {}
///     };
///
/// A copy of a container outside of a heap is one in private memory. It can be assigned to one in
/// the heap, which copies; but neither swapped nor spliced with it, as with any two allocators.
/// A handle: copies are the same heap, in whatever process they are; it ends, with all that is in
/// it, with the last handle of it or of an object.
///
/// *If a peer dies*: what the objects are then, says SharedPtr. Should it have been in the few
/// instructions that take memory from the heap or give it back, what was free near there is not
/// used again; all objects stay as they are, and can grow. *Process safety*: all calls, from any
/// thread.
class SharedHeap {
public:
    /// `bytes` is how large it is at first. *Throws* ValueError unless that is positive,
    /// std::bad_alloc.
    template <std::integral Size>
    explicit SharedHeap(Size bytes) : heap_(shm::ObjectHeap::make(checked(bytes))) {}

    /// Makes an object, from these arguments and an allocator if it takes one. *Throws* ValueError
    /// if there is one of that name, of whatever type; std::bad_alloc; what T's constructor does.
    /// Then there is none.
    template <class T, class... Args>
    SharedPtr<T> construct(std::string_view name, Args&&... args) const;
    template <class T, class Element = typename T::value_type>
    SharedPtr<T> construct(std::string_view name, std::initializer_list<Element> elements) const {
        return construct<T>(name, elements.begin(), elements.end());
    }
    /// The object of that name, or none. *Throws* ValueError if it is one of another type.
    template <class T>
    [[nodiscard]] SharedPtr<T> find(std::string_view name) const;
    /// The object of that name, which is made if there is none; of several who do so at once one
    /// makes it.
    template <class T, class... Args>
    SharedPtr<T> find_or_construct(std::string_view name, const Args&... args) const;
    template <class T, class Element = typename T::value_type>
    SharedPtr<T> find_or_construct(std::string_view name,
                                   std::initializer_list<Element> elements) const {
        return find_or_construct<T>(name, elements.begin(), elements.end());
    }
    /// Destroys the object of that name; its handles say so from then on. Returns false if there is
    /// none. *Throws* ValueError if it is one of another type. *Blocks* while others have its lock.
    template <class T>
    bool destroy(std::string_view name) const;

    /// The names that there are, in no order.
    [[nodiscard]] std::vector<std::string> names() const { return heap_->names(); }
    /// In bytes, as much as it has grown to.
    [[nodiscard]] std::size_t size() const { return heap_->room().size; }
    /// In bytes, in however many pieces.
    [[nodiscard]] std::size_t free_memory() const { return heap_->room().free; }
    /// Has a process died while it took or gave back memory, so that some is lost?
    [[nodiscard]] bool broken() const { return heap_->broken(); }

    /// The same heap?
    friend bool operator==(const SharedHeap& a, const SharedHeap& b) noexcept {
        return a.heap_ == b.heap_;
    }

    // Not to be moved from, as SharedPtr.
    SharedHeap(const SharedHeap&) = default;
    SharedHeap& operator=(const SharedHeap&) = default;
    ~SharedHeap() = default;

    using travels_as_handle = void;

private:
    friend struct pickle::HandleAccess;
    explicit SharedHeap(pickle::Unread) noexcept {}
    void save_handle(pickle::OArchive& archive) const { pickle::save_ref(archive, heap_); }
    void load_handle(pickle::IArchive& archive) {
        heap_ = shm::Shared<shm::ObjectHeap>(pickle::load_ref(archive, sizeof *heap_));
    }
    template <class Size>
    [[nodiscard]] static std::uint64_t checked(Size bytes) {
        if (std::cmp_less_equal(bytes, 0)) {
            throw ValueError("SharedHeap: the size is " + std::to_string(bytes) +
                             ", but must be 1 or more");
        }
        return static_cast<std::uint64_t>(bytes);
    }
    template <class T>
    void check_type(std::string_view name, const shm::ObjectHead& head) const;
    template <class T, class... Args>
    [[nodiscard]] SharedPtr<T> make(Args&&... args) const;

    shm::Shared<shm::ObjectHeap> heap_;
};

// ---------------------------------------------------------------------------------------------------

namespace shared {

/// Whether all that is in a T is in the heap with it.
template <class T>
inline constexpr bool is_heap_object = Shareable<T>;
template <class T>
    requires requires { typename T::allocator_type; }
inline constexpr bool is_heap_object<T> =
    std::constructible_from<typename T::allocator_type, HeapAllocator<std::byte>> && [] {
        if constexpr (requires { typename T::value_type; }) {
            return is_heap_object<typename T::value_type>;
        } else {
            return true;
        }
    }();
template <class A, class B>
inline constexpr bool is_heap_object<std::pair<A, B>> =
    is_heap_object<std::remove_const_t<A>>&& is_heap_object<B>;

}  // namespace shared

template <class T>
void SharedPtr<T>::check() const {
    switch (state()) {
    case shm::ObjectHead::destroyed:
        throw ValueError("the object of a SharedHeap that this handle names has been destroyed");
    case shm::ObjectHead::broken:
        throw BrokenHeapError(
            "a process died while it had the lock of this object of a SharedHeap, which "
            "may be half changed: destroy() it, or call mark_consistent() if it is not");
    default:
        return;
    }
}

template <class T>
void SharedPtr<T>::enter() const {
    check();  // who knows already need not wait
    lock_.lock();
    try {
        check();
    } catch (...) {
        lock_.unlock();
        throw;
    }
}

template <class T>
void SharedPtr<T>::mark_consistent() const {
    expect_one();
    if (!lock_.lock_->is_mine()) {
        throw AssertionError("SharedPtr.mark_consistent(): the calling thread has not the lock, and "
                             "so cannot know: acquire it first");
    }
    lock_.lock_->mark_consistent();
    std::uint32_t broken = shm::ObjectHead::broken;
    head_->state.compare_exchange_strong(broken, shm::ObjectHead::whole);
}

template <class T>
void SharedPtr<T>::save_handle(pickle::OArchive& archive) const {
    archive.put(static_cast<std::uint8_t>(head_ ? 1 : 0));
    if (!head_) return;
    pickle::save_ref(archive, heap_);
    pickle::save_ref(archive, head_);
}

template <class T>
void SharedPtr<T>::load_handle(pickle::IArchive& archive) {
    if (archive.get<std::uint8_t>() == 0) {
        *this = SharedPtr();
        return;
    }
    const shm::Shared<shm::ObjectHeap> heap(pickle::load_ref(archive, sizeof(shm::ObjectHeap)));
    const shm::Shared<shm::ObjectHead> head(
        pickle::load_ref(archive, sizeof(shm::ObjectHead) + sizeof(T)));
    if (head->type != pickle::type_hash<T>()) {
        throw UnpicklingError("the message names an object of a SharedHeap of another type than " +
                              pickle::type_name<T>());
    }
    *this = SharedPtr(head, heap);
}

template <class T>
void SharedHeap::check_type(std::string_view name, const shm::ObjectHead& head) const {
    if (head.type == pickle::type_hash<T>()) return;
    throw ValueError("SharedHeap: '" + std::string(name) + "' is a " +
                     pickle::name_of_hash(head.type) + ", not a " + pickle::type_name<T>());
}

template <class T, class... Args>
SharedPtr<T> SharedHeap::make(Args&&... args) const {
    static_assert(
        shared::is_heap_object<T>,
        "what is in a SharedHeap must have all of its parts there: the containers of mp::shared "
        "instead of std's (of these in each other, too), trivially copyable classes without "
        "pointers, or a class of such with `using allocator_type = mp::shared::allocator<>;` whose "
        "constructors take an allocator as their last argument");
    static_assert(alignof(T) <= alignof(shm::ObjectHead),
                  "what is in a SharedHeap is aligned to 64 bytes");
    static_cast<void>(pickle::KnowType<T>::done);  // so that it has a name where it is not expected
    auto head = shm::Shared<shm::ObjectHead>::make(sizeof(T), pickle::type_hash<T>());
    if constexpr (requires { typename T::allocator_type; }) {
        new (head->object())
            T(std::forward<Args>(args)...,
              typename T::allocator_type(shared::HeapAllocator<std::byte>(*heap_)));
    } else {
        new (head->object()) T(std::forward<Args>(args)...);
    }
    return {head, heap_};
}

template <class T, class... Args>
SharedPtr<T> SharedHeap::construct(std::string_view name, Args&&... args) const {
    if (name.empty()) throw ValueError("SharedHeap: an object has a name that is not empty");
    const auto refuse = [name] {
        throw ValueError("SharedHeap: there is a '" + std::string(name) + "' already");
    };
    if (heap_->find(name)) refuse();
    const SharedPtr<T> made = make<T>(std::forward<Args>(args)...);
    if (!heap_->name(name, made.head_)) {  // somebody has been faster
        std::destroy_at(made.get());
        refuse();
    }
    return made;
}

template <class T>
SharedPtr<T> SharedHeap::find(std::string_view name) const {
    const auto head = heap_->find(name);
    if (!head) return {};
    check_type<T>(name, *head);
    return {head, heap_};
}

template <class T, class... Args>
SharedPtr<T> SharedHeap::find_or_construct(std::string_view name, const Args&... args) const {
    if (name.empty()) throw ValueError("SharedHeap: an object has a name that is not empty");
    for (;;) {
        if (const SharedPtr<T> found = find<T>(name)) return found;
        const SharedPtr<T> made = make<T>(args...);
        if (heap_->name(name, made.head_)) return made;
        std::destroy_at(made.get());
    }
}

template <class T>
bool SharedHeap::destroy(std::string_view name) const {
    const SharedPtr<T> found = find<T>(name);
    if (!found || !heap_->forget(name, found.head_)) return false;
    const std::lock_guard lock(found.get_lock());
    // What is half changed is not to be walked through: its memory is left to the heap.
    if (!found.broken()) std::destroy_at(found.get());
    found.head_->state.store(shm::ObjectHead::destroyed, std::memory_order_release);
    return true;
}

}  // namespace multiprocessing
