// SPDX-License-Identifier: BSL-1.0
//
// Finds the files under a directory, cuts the large ones into pieces, and reads the words of a
// piece. A word is a run of ASCII letters within one file, as `tr -cs A-Za-z '\n'` has it.
#pragma once

#include "block_reader.hpp"
#include "progress.hpp"

#include <boost/serialization/string.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

/// A part of a file: the words that begin in [begin, end) belong to it, whole.
struct Piece {
    static constexpr std::uint64_t to_the_end = std::numeric_limits<std::uint64_t>::max();

    std::string path;
    std::uint64_t size = 0;  ///< as far as the directory knows: only for sharing out the work
    std::uint64_t begin = 0, end = to_the_end;

    template <class Archive>
    void serialize(Archive& archive, unsigned /*version*/) {
        archive & path & size & begin & end;
    }
};

/// The regular files under a directory, symbolic links not followed, as `find -type f` does.
class Corpus {
public:
    /// Lists them all, and remembers what cannot be listed. A file is a corpus as well.
    explicit Corpus(const std::filesystem::path& root) {
        std::error_code error;
        if (std::filesystem::is_regular_file(root, error)) {
            add_file(std::filesystem::directory_entry(root));
            return;
        }
        for (std::vector<std::filesystem::path> folders{root}; !folders.empty();) {
            const std::filesystem::path folder = std::move(folders.back());
            folders.pop_back();
            std::filesystem::directory_iterator entry(folder, error), end;
            for (; entry != end; entry.increment(error)) {
                std::error_code unknown;
                const auto type = entry->symlink_status(unknown).type();
                if (type == std::filesystem::file_type::directory) folders.push_back(entry->path());
                if (type == std::filesystem::file_type::regular) add_file(*entry);
                if (unknown) complain(entry->path(), unknown);
            }
            if (error) complain(folder, error);
        }
    }

    [[nodiscard]] const std::vector<Piece>& pieces() const noexcept { return pieces_; }
    [[nodiscard]] const std::vector<std::string>& complaints() const noexcept {
        return complaints_;
    }
    /// The size of all files together, as far as the directories know.
    [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

    /// All pieces, in batches that shrink towards the end: few results to merge, and yet all
    /// workers finish together.
    [[nodiscard]] std::vector<std::vector<Piece>> batches(int workers) const {
        std::vector<std::vector<Piece>> batches;
        std::uint64_t left = bytes_ + pieces_.size() * opening, room = 0;
        for (const Piece& piece : pieces_) {
            const std::uint64_t cost = piece.size + opening;
            if (batches.empty() || cost > room) {
                room = std::max(left / (2 * static_cast<std::uint64_t>(workers)), smallest_batch);
                batches.emplace_back();
            }
            batches.back().push_back(piece);
            room -= std::min(room, cost);
            left -= cost;
        }
        return batches;
    }

    /// Reads everything once, so that whoever reads it next finds it in the page cache.
    void warm_up() const {
        Progress progress("reading", bytes_);
        std::string block;
        for (const Piece& piece : pieces_) {
            block.resize(std::max<std::size_t>(block.size(), piece.size));
            try {
                BlockReader(piece.path, piece.begin).read(block.data(), piece.size);
            } catch (const std::system_error&) {  // whoever reads it next will say so
            }
            progress.advance(piece.size);
        }
    }

private:
    void add_file(const std::filesystem::directory_entry& entry) {
        std::error_code error;
        std::uint64_t size = entry.file_size(error);
        if (error) return complain(entry.path(), error);
        bytes_ += size;
        std::uint64_t begin = 0;
        for (; size > largest_piece; size -= largest_piece, begin += largest_piece) {
            pieces_.push_back({entry.path().string(), largest_piece, begin, begin + largest_piece});
        }
        pieces_.push_back({entry.path().string(), size, begin, Piece::to_the_end});
    }

    void complain(const std::filesystem::path& path, const std::error_code& error) {
        complaints_.push_back(path.string() + ": " + error.message());
    }

    static constexpr std::uint64_t largest_piece = 16 << 20, smallest_batch = 1 << 20;
    static constexpr std::uint64_t opening = 4 << 10;  // a file costs as much as reading 4 KiB

    std::uint64_t bytes_ = 0;
    std::vector<Piece> pieces_;
    std::vector<std::string> complaints_;
};

inline bool is_letter(char c) noexcept {
    return static_cast<unsigned char>((c | 0x20) - 'a') < 26;  // in ASCII, 0x20 makes it small
}

inline char to_small(char c) noexcept { return is_letter(c) ? static_cast<char>(c | 0x20) : c; }

/// Calls `visit(std::string_view)` with every word of a piece; returns how many bytes it read of
/// it. *Throws*: std::system_error, "path: reason", if it cannot be read.
template <class Visitor>
std::uint64_t for_each_word(const Piece& piece, bool ignore_case, Visitor&& visit) {
    thread_local std::string buffer(std::size_t(256) << 10, '\0');
    // We look at the byte before the piece too: a letter there means that the word which goes on
    // from it began in the piece before, and is counted there.
    bool skipping = piece.begin != 0;
    std::uint64_t position = piece.begin - (skipping ? 1 : 0);  // of the buffer's first byte
    BlockReader file(piece.path, position);

    for (std::size_t kept = 0;;) {  // bytes of an unfinished word at the front of the buffer
        if (2 * kept > buffer.size()) buffer.resize(2 * buffer.size());
        const std::size_t wanted = buffer.size() - kept;
        const std::size_t got = file.read(buffer.data() + kept, wanted);
        const bool last = got < wanted;
        const char* const front = buffer.data();
        const char* const back = front + kept + got;
        if (ignore_case) std::transform(front + kept, back, buffer.data() + kept, to_small);

        const char* here = skipping ? std::find_if_not(front, back, is_letter) : front;
        skipping = skipping && here == back;
        while (true) {
            const char* const word = std::find_if(here, back, is_letter);
            kept = static_cast<std::size_t>(back - word);
            const auto begins = position + static_cast<std::uint64_t>(word - front);
            if (begins >= piece.end) return piece.end - piece.begin;
            here = std::find_if_not(word, back, is_letter);
            if (word == back || (here == back && !last)) break;
            visit(std::string_view(word, static_cast<std::size_t>(here - word)));
        }
        position += static_cast<std::uint64_t>(back - front) - kept;
        if (last) return position - std::min(position, piece.begin);
        std::memmove(buffer.data(), back - kept, kept);
    }
}
