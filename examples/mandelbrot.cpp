// Renders the Mandelbrot set by a Pool, row by row, and writes it as a PNG.
// SPDX-License-Identifier: BSL-1.0
//
//     def render(view, row):                  # a row of pixels, and which one it is
//         return row, bytes(...)
//
//     if __name__ == "__main__":
//         picture = bytearray(3 * width * height)
//         with Pool() as pool:
//             rows = pool.imap_unordered(partial(render, view), range(height), 4)
//             for row, pixels in rows:
//                 picture[3 * width * row:3 * width * (row + 1)] = pixels
//                 progress.advance()
#include "support/arguments.hpp"
#include "support/engine.hpp"
#include "support/picture.hpp"
#include "support/progress.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <iomanip>
#include <iostream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

constexpr std::string_view usage = R"(usage: mandelbrot [OPTION]...
Renders the Mandelbrot set with a Pool, and writes it as a PNG.

  --size WxH         pixels, 1x1 to 30000x30000: by default 1200x800
  --view RE,IM,W     the centre, and the width in the complex plane: by default -0.7,0,3.6
  --processes N      workers of the Pool: 1 to 1024, by default one for each processor, or all
                     ranks of MPI but one
  --output FILE.png  by default mandelbrot.png in the current directory
  --help             print this

Exit status: 0, or 1 if the picture could not be made, or 2 if the arguments are wrong.
)";

using Row = std::pair<int, std::vector<std::uint8_t>>;  // three bytes a pixel

Row render(const View& view, int row) {
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(view.width) * 3);
    for (int x = 0; x < view.width; ++x) {
        paint(std::span(pixels).subspan(static_cast<std::size_t>(x) * 3, 3),
              escape_time(view.point(x, row)));
    }
    return {row, std::move(pixels)};
}

int main(int argc, char** argv) try {
    freeze_support(argc, argv);
    Arguments arguments("mandelbrot", usage, argc, argv);
    const View view = parse_view(arguments);
    const int processes = arguments.number("--processes", all_workers(), 1, 1024);
    const std::string file = arguments.option("--output").value_or("mandelbrot.png");
    arguments.finish();

    const auto start = std::chrono::steady_clock::now();
    const auto bytes_per_row = static_cast<std::size_t>(view.width) * 3;
    std::vector<std::uint8_t> picture(bytes_per_row * static_cast<std::size_t>(view.height));
    Crew crew;
    {
        Progress progress("rendering", static_cast<std::uint64_t>(view.height));
        Pool pool(processes);
        crew = crew_of(pool);
        const auto rows = pool.imap_unordered(mp::partial(render, view), mp::range(view.height), 4);
        for (const auto& [row, pixels] : rows) {
            std::copy(pixels.begin(), pixels.end(),
                      picture.data() + static_cast<std::size_t>(row) * bytes_per_row);
            progress.advance(1);
        }
    }
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    write_png(file, view, picture);
    std::cout << file << ": " << view.width << " x " << view.height << " pixels, rendered in "
              << std::setprecision(3) << time.count() << " s by " << crew.name << '\n';
} catch (const std::exception& error) {
    std::cerr << "mandelbrot: " << error.what() << '\n';
    return 1;
}
