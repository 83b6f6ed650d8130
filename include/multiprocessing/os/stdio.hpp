// SPDX-License-Identifier: BSL-1.0
//
// The three standard streams around a fork: what is buffered goes out once, a child does not read
// its parent's input, and a report about a failure is one write. Answers Python's
// `util._flush_std_streams` and `util._close_stdin`.
#pragma once

#include <multiprocessing/os/bound.hpp>
#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/fd.hpp>

#include <cstdio>
#include <iostream>
#include <optional>
#include <string_view>
#include <typeinfo>

#if defined(__GLIBCXX__)
#include <ext/stdio_sync_filebuf.h>
#endif

#include <fcntl.h>
#include <stdio_ext.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace multiprocessing::os {

/// Whether a C++ stream hands everything on to the C library at once, as cout and its like do
/// unless told otherwise.
[[nodiscard]] inline bool is_unbuffered(const std::ostream& stream) {
#if defined(__GLIBCXX__)
    const std::streambuf& buffer = *stream.rdbuf();
    return typeid(buffer) == typeid(__gnu_cxx::stdio_sync_filebuf<char>);
#else
    return stream.rdbuf() == nullptr;
#endif
}

/// Flushes stdout and stderr, C's and C++'s. A stream that is closed or broken is nobody's business
/// here. Only these: flushing every FILE would wait for one that another thread is reading from.
/// And only if there is something to flush: most children have nothing, and pay for every page
/// touched.
inline void flush_standard_streams() noexcept {
    for (std::ostream* stream : {&std::cout, &std::cerr, &std::clog}) {
        try {
            if (stream->rdbuf() != nullptr && !is_unbuffered(*stream)) stream->rdbuf()->pubsync();
        } catch (...) {  // the stream's own exceptions() are its owner's wish, not ours
        }
    }
    for (std::FILE* file : {stdout, stderr}) {
        if (::__fpending(file) != 0) std::fflush(file);
    }
}

/// Whether C's stdin may have read ahead. (Where that is not known it has a buffer always.)
[[nodiscard]] inline bool stdin_is_buffered() noexcept { return ::__fbufsize(stdin) != 0; }

/// What reads as empty; nothing where there is no /dev/null.
[[nodiscard]] inline Fd open_null() noexcept {
    Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    if (null && null.get() <= STDERR_FILENO) {
        null = Fd(::fcntl(null.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
    }
    return null;
}

/// Makes `null` descriptor 0, and forgets what C's stdin has read ahead: it is the parent's.
inline void replace_stdin(const Fd& null, bool buffered) noexcept {
    if (null) {
        bound<&::dup2>(null.get(), STDIN_FILENO);
    } else {
        ::close(STDIN_FILENO);
    }
    if (buffered) bound<&::__fpurge>(stdin);
}

inline constexpr int stdout_descriptor = STDOUT_FILENO;
inline constexpr int stderr_descriptor = STDERR_FILENO;

[[nodiscard]] inline bool stdout_is_open() noexcept { return ::fcntl(STDOUT_FILENO, F_GETFD) >= 0; }
[[nodiscard]] inline bool stderr_is_open() noexcept { return ::fcntl(STDERR_FILENO, F_GETFD) >= 0; }

/// Gives up stdout and stderr: what is written there goes nowhere.
inline void redirect_output_to_null() noexcept {
    const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null < 0) return;
    ::dup2(null, STDOUT_FILENO);
    ::dup2(null, STDERR_FILENO);
    if (null > STDERR_FILENO) ::close(null);
}

/// Puts another file in the place of stdout or stderr.
inline void replace_stdout(int fd) noexcept { ::dup2(fd, STDOUT_FILENO); }
inline void replace_stderr(int fd) noexcept { ::dup2(fd, STDERR_FILENO); }

/// How many columns the terminal has that stderr is; nothing where it is none.
[[nodiscard]] inline std::optional<int> stderr_columns() noexcept {
    if (::isatty(STDERR_FILENO) == 0) return std::nullopt;
    ::winsize size{};
    constexpr int usual = 80;
    return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0 ? size.ws_col : usual;
}

/// Writes a report to stderr in one piece, so that those of several processes do not mix.
inline void write_to_stderr(std::string_view text) noexcept {
    while (!text.empty()) {
        const auto written =
            retry_on_signal([&] { return ::write(STDERR_FILENO, text.data(), text.size()); });
        if (written <= 0) return;
        text.remove_prefix(static_cast<std::size_t>(written));
    }
}

}  // namespace multiprocessing::os
