// Counts the words of every file under a directory by map and reduce, and how much faster that is.
// SPDX-License-Identifier: BSL-1.0
//
//     def count(batch):                       # the map: some files
//         words = Counter()
//         for path in batch:
//             with open(path, encoding="latin-1") as file:
//                 words.update(re.findall("[A-Za-z]+", file.read()))
//         return words
//
//     if __name__ == "__main__":
//         words = Counter()
//         with Pool() as pool:                # the reduce: sums are merged as they come
//             for some in pool.imap_unordered(count, batches):
//                 words.update(some)
#include "support/arguments.hpp"
#include "support/corpus.hpp"
#include "support/engine.hpp"
#include "support/progress.hpp"
#include "support/tally.hpp"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

constexpr std::string_view usage = R"(usage: wordcount [OPTION]... [DIRECTORY]
Counts the words of all regular files under DIRECTORY (by default the headers of Boost). A word is
a run of the letters A to Z and a to z. Prints the commonest words with their counts, then the time
of one process, the time of a Pool, and the ratio of the two.

  --processes N   workers of the Pool: 1 to 1024, by default one for each processor, or all ranks
                  of MPI but one; with 1, one process counts without a Pool
  --top N         how many words to print: by default 20
  --ignore-case   "Word" and "word" are one word
  --once          do not read the files beforehand and do not count by one process for comparison:
                  for what is larger than memory
  --help          print this

Exit status: 0, or 1 if something could not be read, or 2 if the arguments are wrong.
)";

std::string default_directory() {
    for (const char* directory :
         {"/usr/include/boost", "/usr/local/include/boost", "/usr/include"}) {
        if (std::filesystem::is_directory(directory)) return directory;
    }
    return "";
}

Tally count_batch(bool ignore_case, const std::vector<Piece>& batch) {
    Tally tally;
    for (const Piece& piece : batch) tally.count(piece, ignore_case);
    return tally;
}

Tally count_by_one(const Corpus& corpus, bool ignore_case) {
    Progress progress("one process", corpus.bytes());
    Tally sum;
    for (const Piece& piece : corpus.pieces()) {
        sum.count(piece, ignore_case);
        progress.advance(piece.size);
    }
    return sum;
}

Tally count_by_pool(const Corpus& corpus, bool ignore_case, Pool& pool, const Crew& crew) {
    Progress progress(crew.name, corpus.bytes());
    Tally sum;
    const auto count = mp::partial(count_batch, ignore_case);
    for (const Tally& tally : pool.imap_unordered(count, corpus.batches(crew.size))) {
        sum.merge(tally);
        progress.advance(tally.bytes);
    }
    return sum;
}

int main(int argc, char** argv) try {
    freeze_support(argc, argv);
    Arguments arguments("wordcount", usage, argc, argv);
    const int processes = arguments.number("--processes", all_workers(), 1, 1024);
    const auto top = arguments.number<std::size_t>("--top", 20, 0, SIZE_MAX);
    const bool ignore_case = arguments.flag("--ignore-case");
    const bool once = arguments.flag("--once");
    const std::string directory = arguments.word().value_or(default_directory());
    arguments.finish();
    if (directory.empty()) arguments.fail("there are no Boost headers here: name a DIRECTORY");
    std::error_code unknown;
    if (!std::filesystem::exists(directory, unknown)) {
        arguments.fail("there is no '" + directory + "'");
    }

    const Corpus corpus(directory);
    if (!once) corpus.warm_up();
    std::optional<Run> alone, pooled;
    Crew crew;
    if (processes == 1 || !once) alone = timed([&] { return count_by_one(corpus, ignore_case); });
    if (processes > 1) {
        pooled = timed([&] {
            Pool pool(processes);
            crew = crew_of(pool);
            return count_by_pool(corpus, ignore_case, pool, crew);
        });
    }

    const Tally& tally = pooled ? pooled->tally : alone->tally;
    for (const auto& [word, count] : tally.table.commonest(top)) {
        std::cout << std::setw(7) << count << ' ' << word << '\n';  // as `uniq -c` does
    }
    std::cout << "\n"
              << directory << ": " << tally.files << " files, " << tally.bytes << " bytes, "
              << tally.words << " words, " << tally.table.size() << " different ones\n";
    if (alone) print_speed("1 process", *alone);
    if (pooled) print_speed(crew.name, *pooled);
    if (alone && pooled) {
        std::cout << "speed-up over one process: " << std::fixed << std::setprecision(2)
                  << alone->seconds / pooled->seconds << '\n';
    }
    if (!std::cout.flush()) throw std::runtime_error("the result could not be written");

    std::set<std::string> complaints = tally.complaints;
    complaints.insert(corpus.complaints().begin(), corpus.complaints().end());
    for (const std::string& complaint : complaints) std::cerr << "wordcount: " << complaint << '\n';
    if (!complaints.empty()) {
        std::cerr << "wordcount: " << complaints.size() << " files or directories were not read\n";
    }
    return complaints.empty() ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << "wordcount: " << error.what() << '\n';
    return 1;
}
