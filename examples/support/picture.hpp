// SPDX-License-Identifier: BSL-1.0
//
// What `mandelbrot` draws: which point of the plane a pixel is, its colour, and the PNG of them
// all.
#pragma once

#include "arguments.hpp"

#include <png.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

/// What is to be seen.
struct View {
    int width = 1200, height = 800;        // pixels
    double re = -0.7, im = 0, span = 3.6;  // centre and width in the plane

    [[nodiscard]] std::complex<double> point(int x, int y) const {
        const double pixel = span / width;
        return {re + (x - (width - 1) / 2.0) * pixel, im - (y - (height - 1) / 2.0) * pixel};
    }

    template <class Archive>
    void serialize(Archive& archive, unsigned /*version*/) {
        archive & width & height & re & im & span;
    }
};

inline View parse_view(Arguments& arguments) {
    View wanted;
    if (const auto text = arguments.option("--size")) {
        const auto size = Arguments::parse_list<int>(*text, 'x');
        const auto fits = [](int pixels) { return pixels >= 1 && pixels <= 30000; };
        if (size.size() != 2 || !std::all_of(size.begin(), size.end(), fits)) {
            arguments.fail("--size needs WxH, each from 1 to 30000, not '" + *text + "'");
        }
        wanted.width = size[0];
        wanted.height = size[1];
    }
    if (const auto text = arguments.option("--view")) {
        const auto numbers = Arguments::parse_list<double>(*text, ',');
        if (numbers.size() != 3 || !(numbers[2] > 0)) {
            arguments.fail("--view needs RE,IM,W with W above 0, not '" + *text + "'");
        }
        wanted.re = numbers[0];
        wanted.im = numbers[1];
        wanted.span = numbers[2];
    }
    return wanted;
}

/// How fast `c` escapes, without steps between neighbours; nothing if it does not.
inline std::optional<double> escape_time(std::complex<double> c) {
    constexpr int most = 1000;
    double re = 0, im = 0;
    for (int n = 0; n < most; ++n) {
        const double re2 = re * re, im2 = im * im;
        if (re2 + im2 > 1e4) return n + 1 - std::log2(std::log(re2 + im2) / 2);
        im = 2 * re * im + c.imag();
        re = re2 - im2 + c.real();
    }
    return std::nullopt;
}

/// The colours go round once while the escape time grows fourfold: fine and coarse detail alike.
inline void paint(std::span<std::uint8_t> pixel, std::optional<double> time) {
    const double angle = time ? std::numbers::pi * std::log2(std::max(*time, 1.0)) : 0;
    for (int i = 0; i < 3; ++i) {
        const double shade = time ? 0.5 - 0.5 * std::cos(angle + (2 - i) * 0.7) : 0;
        pixel[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(255 * shade);
    }
}

inline void write_png(const std::string& file, const View& size,
                      std::span<const std::uint8_t> pixels) {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    image.width = static_cast<png_uint_32>(size.width);
    image.height = static_cast<png_uint_32>(size.height);
    image.format = PNG_FORMAT_RGB;
    if (png_image_write_to_file(&image, file.c_str(), 0, pixels.data(), 0, nullptr) == 0) {
        throw std::runtime_error(file + ": " + image.message);
    }
}
