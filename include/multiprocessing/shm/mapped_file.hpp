// SPDX-License-Identifier: BSL-1.0
//
// A file in memory, by its descriptor.
#pragma once

#include <multiprocessing/os/error.hpp>
#include <multiprocessing/os/fd.hpp>

#include <boost/interprocess/mapped_region.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace multiprocessing::shm {

/// Maps the first bytes of a file, to be read and written. Throws interprocess_exception. The
/// descriptor is not needed afterwards.
[[nodiscard]] inline boost::interprocess::mapped_region map_file(const os::Fd& file,
                                                                 std::uint64_t bytes) {
    namespace bip = boost::interprocess;
    // What mapped_region asks of a thing that can be mapped.
    struct Device {
        int fd;
        [[nodiscard]] bip::mapping_handle_t get_mapping_handle() const {
            return bip::ipcdetail::mapping_handle_from_file_handle(fd);
        }
        [[nodiscard]] static bip::mode_t get_mode() { return bip::read_write; }
    };
    return {Device{file.get()}, bip::read_write, 0, static_cast<std::size_t>(bytes)};
}

/// What map_file() threw, as the exception of a system call.
[[noreturn]] inline void throw_unmappable(const boost::interprocess::interprocess_exception& error,
                                          std::string_view object) {
    os::throw_error(error.get_native_error(), "mmap", object);
}

}  // namespace multiprocessing::shm
