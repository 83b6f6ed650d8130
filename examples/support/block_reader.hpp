// SPDX-License-Identifier: BSL-1.0
//
// Reads files in large blocks, and says which file cannot be read, and why.
#pragma once

#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

/// Reads a file from a place on, block by block, without a buffer in between.
class BlockReader {
public:
    /// *Throws*: std::system_error, "path: reason", as read() does.
    explicit BlockReader(std::string path, std::uint64_t start = 0)
        : path_(std::move(path)), file_(std::fopen(path_.c_str(), "rb"), &std::fclose) {
        if (!file_) fail();
        std::setvbuf(file_.get(), nullptr, _IONBF, 0);
        if (start != 0 && fseeko(file_.get(), static_cast<off_t>(start), SEEK_SET) != 0) fail();
    }

    /// Returns fewer than `size` bytes only at the end of the file.
    std::size_t read(char* to, std::size_t size) {
        const std::size_t count = std::fread(to, 1, size, file_.get());
        if (count < size && std::ferror(file_.get()) != 0) fail();
        return count;
    }

private:
    [[noreturn]] void fail() const {
        throw std::system_error(errno, std::generic_category(), path_);
    }

    std::string path_;
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};
