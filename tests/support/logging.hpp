// SPDX-License-Identifier: BSL-1.0
//
// A case that uses the log, which is the whole process's, leaves it as every case finds it: off.
#pragma once

#include <multiprocessing/util.hpp>

namespace support {

class RestoreLog {
public:
    RestoreLog() = default;
    RestoreLog(const RestoreLog&) = delete;
    RestoreLog& operator=(const RestoreLog&) = delete;
    ~RestoreLog() {
        multiprocessing::get_logger().set_sink(nullptr);
        multiprocessing::get_logger().set_level(multiprocessing::log_level::notset);
    }
};

}  // namespace support
