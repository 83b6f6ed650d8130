// SPDX-License-Identifier: BSL-1.0
//
// Where an exception was thrown that is caught much further out. Answers the traceback of a Python
// exception.
//
// A throw first looks for its handler, with the whole stack still there, and only then unwinds the
// stack to it. While it looks, each catch clause that it comes to is asked whether it takes the
// exception; what is asked is the std::type_info of the clause's type. That of `ThrowWatch` is not
// the compiler's but ours: asked, it writes down the stack and says no. An exception that is caught
// before it comes to such a clause costs nothing more, and the stack is written down only as far as
// the search has just walked it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <typeinfo>

#include <unwind.h>

// libstdc++ declares what its type infos are asked; libc++ does not.
#if defined(__GLIBCXX__) && !defined(__ARM_EABI_UNWINDER__)
#define MULTIPROCESSING_THROW_WATCH 1
#endif

namespace multiprocessing::os {

/// The calls that a thread was in, the innermost first; of a deep stack only the innermost. An
/// address is inside its call, not after it, where another function may begin.
struct Backtrace {
    std::array<std::uintptr_t, 80> calls{};
    std::size_t size = 0;
    bool cut = false;  // there were more
};

/// What nothing is. Its only use, in a process's first thread:
///
///     try {
///         os::watch_throws(run);
///     } catch (const Expected&) {            // of which no trace is taken
///     } catch (const os::ThrowWatch&) {      // never
///     } catch (...) {
///         use(os::last_watched_throw());
///     }
struct ThrowWatch {
    virtual ~ThrowWatch();  // Defined nowhere, so the compiler leaves the type info to us.
};

/// Calls `run`, the outermost function that is in a trace. (Its caller's frame is where one ends.)
template <class Run>
[[gnu::always_inline]] inline void watch_throws(Run&& run);

/// While it lives traces end at the function that it is in: for one that catches what many calls throw,
/// and takes each trace. In that same thread; made where it is declared.
class WatchedFrame {
public:
    [[gnu::always_inline]] WatchedFrame() noexcept;
    WatchedFrame(const WatchedFrame&) = delete;
    WatchedFrame& operator=(const WatchedFrame&) = delete;
    ~WatchedFrame();

private:
    std::uintptr_t before_;
};

/// What is thrown next is to be written down.
void forget_watched_throw() noexcept;

/// From the function that threw (within it, the C++ runtime's) to `run`; empty where the platform
/// cannot tell.
[[nodiscard]] const Backtrace& last_watched_throw() noexcept;

// -------------------------------------------------------------------------------------------------

namespace throw_watch {

struct State {
    std::uintptr_t base = 0;  // in the frame of who called watch_throws
    Backtrace last;
};
inline constinit State state;

/// A frame of its own, for a `run` that is inlined to be in.
template <class Run>
[[gnu::noinline]] void call(Run& run) {
    run();
}

#ifdef MULTIPROCESSING_THROW_WATCH

inline _Unwind_Reason_Code write_down(_Unwind_Context* context, void*) noexcept {
    Backtrace& trace = state.last;
    // A stack grows downwards. This frame begins above the base: the one before was the base's own.
    if (_Unwind_GetCFA(context) > state.base) {
        if (trace.size > 0) --trace.size;
        return _URC_END_OF_STACK;
    }
    trace.cut = trace.size == trace.calls.size();
    if (trace.cut) return _URC_END_OF_STACK;
    int not_called = 0;  // but interrupted by a signal
    const std::uintptr_t next = _Unwind_GetIPInfo(context, &not_called);
    trace.calls[trace.size++] = not_called != 0 ? next : next - 1;
    return _URC_NO_REASON;
}

class TypeInfo final : public std::type_info {
public:
    TypeInfo() noexcept : std::type_info("N15multiprocessing2os10ThrowWatchE") {}
    bool __do_catch(const std::type_info*, void**, unsigned) const override {
        // Asked again, it is by an exception that unwinds the stack by now, to a frame further out.
        if (state.last.size == 0) _Unwind_Backtrace(&write_down, nullptr);
        return false;
    }
};

/// The type info of `ThrowWatch`, under the name by which the compiler refers to it. std::type_info
/// has no constexpr constructor, so it is made in its place before it is needed. (The compiler does
/// not see that its own references are to this: hence `used`.)
[[gnu::used]] alignas(TypeInfo) inline constinit std::byte type_info[sizeof(TypeInfo)] asm(
    "_ZTIN15multiprocessing2os10ThrowWatchE") = {};

inline void prepare(const void* base) noexcept {
    ::new (static_cast<void*>(type_info)) TypeInfo;
    state.base = reinterpret_cast<std::uintptr_t>(base);
}

#else

inline void prepare(const void*) noexcept {}

#endif

}  // namespace throw_watch

#ifndef MULTIPROCESSING_THROW_WATCH
inline ThrowWatch::~ThrowWatch() = default;
#endif

inline void forget_watched_throw() noexcept {
    throw_watch::state.last.size = 0;
    throw_watch::state.last.cut = false;
}

inline WatchedFrame::WatchedFrame() noexcept : before_(throw_watch::state.base) {
    forget_watched_throw();
    throw_watch::prepare(__builtin_frame_address(0));
}

inline WatchedFrame::~WatchedFrame() { throw_watch::state.base = before_; }

template <class Run>
void watch_throws(Run&& run) {
    forget_watched_throw();
    throw_watch::prepare(__builtin_frame_address(0));
    throw_watch::call(run);
}

inline const Backtrace& last_watched_throw() noexcept { return throw_watch::state.last; }

}  // namespace multiprocessing::os

#undef MULTIPROCESSING_THROW_WATCH
