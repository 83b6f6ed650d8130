// SPDX-License-Identifier: BSL-1.0
//
// The three standard streams around a fork: what is buffered goes out once, a child does not read
// its parent's input, and a report about a failure is one write. Answers Python's
// `util._flush_std_streams` and `util._close_stdin`.
#pragma once

#include <multiprocessing/os/error.hpp>

#include <cstdio>
#include <iostream>
#include <string_view>

#include <fcntl.h>
#include <stdio_ext.h>
#include <unistd.h>

namespace multiprocessing::os {

/// Flushes stdout and stderr, C's and C++'s. A stream that is closed or broken is nobody's business
/// here. Only these: flushing every FILE would wait for one that another thread is reading from.
inline void flush_standard_streams() noexcept {
    for (std::ostream* stream : {&std::cout, &std::cerr, &std::clog}) {
        try {
            if (stream->rdbuf() != nullptr) stream->rdbuf()->pubsync();
        } catch (...) {  // the stream's own exceptions() are its owner's wish, not ours
        }
    }
    std::fflush(stdout);
    std::fflush(stderr);
}

/// Makes descriptor 0 read as empty, and forgets what C's stdin has read ahead: it is the parent's.
inline void redirect_stdin_to_null() noexcept {
    const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null > 0) {
        ::dup2(null, STDIN_FILENO);
        ::close(null);
    } else if (null == STDIN_FILENO) {
        ::fcntl(null, F_SETFD, 0);
    } else {
        ::close(STDIN_FILENO);
    }
    ::__fpurge(stdin);
}

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
