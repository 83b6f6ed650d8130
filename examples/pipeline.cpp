// Reads a log or any text through a pipeline: reader, parsers, aggregator, with bounded Queues.
// SPDX-License-Identifier: BSL-1.0
//
//     def parse(blocks, summaries):
//         while (block := blocks.get()) is not None:
//             summaries.put(summarise(block))     # waits while the aggregator is behind
//
//     if __name__ == "__main__":
//         blocks, summaries = Queue(2 * parsers), Queue(2 * parsers)
//         stages = [Process(target=read, args=(path, blocks)),
//                   *[Process(target=parse, args=(blocks, summaries)) for _ in range(parsers)],
//                   Process(target=aggregate, args=(summaries,))]
//         for p in stages: p.start()
//         for p in stages: p.join()               # for ever, if one of them is killed
#include "support/arguments.hpp"
#include "support/block_reader.hpp"
#include "support/progress.hpp"
#include "support/summary.hpp"

#include <multiprocessing.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace mp = multiprocessing;

constexpr std::string_view usage = R"(usage: pipeline [OPTION]... [FILE]
Reads FILE (by default the log of dpkg) through a pipeline of processes: a reader, several parsers
and an aggregator. Prints its lines, words and bytes, its longest line, the commonest words and, of
lines that begin with a date such as 2025-12-31, the days and the events: the third
word, and the fourth after "status".

  --parsers N   how many processes parse: 1 to 1024, by default one for each processor
  --top N       how many words, days and events to print: by default 10
  --help        print this

Exit status: 0, or 1 if something goes wrong, or 2 if the arguments are wrong.
)";

std::string default_file() {
    for (const char* file : {"/var/log/dpkg.log", "/var/log/apt/history.log", "/var/log/syslog",
                             "/var/log/messages", "/usr/share/common-licenses/GPL-3"}) {
        if (std::ifstream(file).peek() != std::ifstream::traits_type::eof()) return file;
    }
    return "";
}

/// The first stage: cuts the file into blocks of whole lines.
void read_blocks(BlockReader& file, std::uint64_t size, mp::Queue<std::string> blocks) {
    constexpr std::size_t block_size = 256 << 10;
    {
        Progress progress("reading", size);
        std::string block;
        for (bool last = false; !last;) {
            const std::size_t kept = block.size();  // of a line that goes on
            block.resize(kept + block_size);
            const std::size_t got = file.read(block.data() + kept, block_size);
            block.resize(kept + got);
            last = got < block_size;
            const std::size_t line_end = std::string_view(block).substr(kept).rfind('\n');
            if (!last && line_end == std::string::npos) continue;
            const std::size_t cut = last ? block.size() : kept + line_end + 1;
            blocks.put(block.substr(0, cut));  // waits while the parsers are behind
            block.erase(0, cut);
            progress.advance(cut);
        }
    }
    blocks.shutdown();
}

/// The second stage, several times over.
void parse_blocks(mp::Queue<std::string> blocks, mp::Queue<Summary> summaries,
                  mp::Value<int> parsers) {
    for (const std::string& block : blocks) {
        Summary summary;
        summary.bytes = block.size();
        for (std::string_view rest = block; !rest.empty();) {
            const std::size_t end = std::min(rest.find('\n'), rest.size());
            add_line(summary, rest.substr(0, end));
            rest.remove_prefix(std::min(end + 1, rest.size()));
        }
        summaries.put(summary);  // waits while the aggregator is behind
    }
    if (parsers.fetch_add(-1) == 1) summaries.shutdown();  // the last one out
}

/// The last stage.
void aggregate(const std::string& path, std::size_t top, mp::Queue<Summary> summaries) {
    Summary sum;
    for (const Summary& summary : summaries) sum.merge(summary);
    std::cout << path << ": " << sum.lines << " lines, " << sum.words << " words, " << sum.bytes
              << " bytes, " << sum.longest << " in the longest line\n";
    print("days", sum.days, top);
    print("events", sum.events, top);
    print("words", sum.commonest, top);
    if (!std::cout.flush()) throw std::runtime_error("the report could not be written");
}

/// Waits until all stages have ended. When one fails, whatever the reason, the others would wait
/// for it for ever: that is an error at once, and the daemons end with us.
void supervise(std::vector<mp::Process> stages) {
    while (!stages.empty()) {
        std::vector<mp::connection::Waitable> sentinels;
        for (const mp::Process& stage : stages) sentinels.emplace_back(stage.sentinel());
        const auto ended = mp::connection::wait(sentinels);
        std::erase_if(stages, [&](const mp::Process& stage) {
            const auto it = std::find(ended.begin(), ended.end(), stage.sentinel());
            if (it == ended.end()) return false;
            stage.join();
            if (stage.exitcode() != 0) {
                throw std::runtime_error(stage.name() + " ended with exit code " +
                                         std::to_string(stage.exitcode().value()));
            }
            return true;
        });
    }
}

int main(int argc, char** argv) try {
    mp::freeze_support();
    Arguments arguments("pipeline", usage, argc, argv);
    const int parsers = arguments.number("--parsers", mp::process_cpu_count(), 1, 1024);
    const auto top = arguments.number<std::size_t>("--top", 10, 0, SIZE_MAX);
    const std::string file = arguments.word().value_or(default_file());
    arguments.finish();
    if (file.empty()) arguments.fail("there is no log here: name a FILE");
    std::error_code unknown;  // as of a pipe, whose size nobody knows
    if (std::filesystem::is_directory(file, unknown)) arguments.fail(file + ": Is a directory");
    std::optional<BlockReader> input;
    try {
        input.emplace(file);
    } catch (const std::system_error& error) {
        arguments.fail(error.what());
    }
    const std::uintmax_t size = std::filesystem::file_size(file, unknown);

    mp::Queue<std::string> blocks(2 * parsers);
    mp::Queue<Summary> summaries(2 * parsers);
    mp::Value<int> parsers_left(parsers);

    std::vector<mp::Process> stages;
    stages.emplace_back(mp::ProcessOptions{.name = "reader", .daemon = true}, [&] {
        read_blocks(*input, unknown ? 0 : size, blocks);  // forked: it has what we have opened
    });
    for (int i = 1; i <= parsers; ++i) {
        stages.emplace_back(
            mp::ProcessOptions{.name = "parser " + std::to_string(i), .daemon = true}, parse_blocks,
            blocks, summaries, parsers_left);
    }
    stages.emplace_back(mp::ProcessOptions{.name = "aggregator", .daemon = true}, aggregate, file,
                        top, summaries);
    for (const mp::Process& stage : stages) stage.start();
    supervise(stages);
} catch (const std::exception& error) {
    std::cerr << "pipeline: " << error.what() << '\n';
    return 1;
}
