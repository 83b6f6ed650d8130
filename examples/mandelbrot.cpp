// Renders the Mandelbrot set by a Pool into a shared Array, and writes it as a PNG.
// SPDX-License-Identifier: BSL-1.0
//
//     def share(array, ...):                  # once in every worker: a global of its own
//         global canvas
//         canvas = array
//
//     def render(row):
//         canvas[row * width:(row + 1) * width] = ...
//
//     if __name__ == "__main__":
//         canvas = Array("B", 3 * width * height, lock=False)
//         with Pool(initializer=share, initargs=(canvas, ...)) as pool:
//             for row in pool.imap_unordered(render, range(height), 4):
//                 progress.advance()
#include "support/arguments.hpp"
#include "support/picture.hpp"
#include "support/progress.hpp"

#include <multiprocessing.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <iomanip>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>

namespace mp = multiprocessing;

constexpr std::string_view usage = R"(usage: mandelbrot [OPTION]...
Renders the Mandelbrot set with a Pool of processes, and writes it as a PNG.

  --size WxH         pixels, 1x1 to 30000x30000: by default 1200x800
  --view RE,IM,W     the centre, and the width in the complex plane: by default -0.7,0,3.6
  --processes N      workers of the Pool: 1 to 1024, by default one for each processor
  --output FILE.png  by default mandelbrot.png in the current directory
  --help             print this

Exit status: 0, or 1 if the picture could not be made, or 2 if the arguments are wrong.
)";

using Canvas = mp::Array<std::uint8_t>;  // three bytes a pixel, row by row

std::optional<Canvas> canvas;  // each worker's own handle to the one array
View view;

void share(Canvas array, View whole) {  // once in every worker
    canvas = array;
    view = whole;
}

int render(int row) {
    const auto width = static_cast<std::size_t>(view.width);
    const auto pixels =
        canvas->span().subspan(static_cast<std::size_t>(row) * width * 3, width * 3);
    for (int x = 0; x < view.width; ++x) {
        paint(pixels.subspan(static_cast<std::size_t>(x) * 3, 3), escape_time(view.point(x, row)));
    }
    return row;
}

int main(int argc, char** argv) try {
    mp::freeze_support();
    Arguments arguments("mandelbrot", usage, argc, argv);
    view = parse_view(arguments);
    const int processes = arguments.number("--processes", mp::process_cpu_count(), 1, 1024);
    const std::string file = arguments.option("--output").value_or("mandelbrot.png");
    arguments.finish();

    const auto start = std::chrono::steady_clock::now();
    canvas.emplace(static_cast<std::size_t>(view.width) * static_cast<std::size_t>(view.height) *
                   3);
    {
        Progress progress("rendering", static_cast<std::uint64_t>(view.height));
        mp::Pool pool({.processes = processes, .initializer = mp::partial(share, *canvas, view)});
        for ([[maybe_unused]] int row : pool.imap_unordered(render, mp::range(view.height), 4)) {
            progress.advance(1);
        }
    }
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    write_png(file, view, canvas->span());
    std::cout << file << ": " << view.width << " x " << view.height << " pixels, rendered in "
              << std::setprecision(3) << time.count() << " s by " << processes
              << (processes == 1 ? " process\n" : " processes\n");
} catch (const std::exception& error) {
    std::cerr << "mandelbrot: " << error.what() << '\n';
    return 1;
}
