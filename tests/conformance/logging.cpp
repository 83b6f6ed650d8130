// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/connection.hpp>
#include <multiprocessing/util.hpp>

#include "conformance/helpers.hpp"
#include "support/catch.hpp"
#include "support/logging.hpp"

#include <string>

namespace mp = multiprocessing;
using namespace support;

namespace {

void send_level(const mp::Connection& conn) { conn.send(mp::get_logger().get_effective_level()); }

}  // namespace

TEST_CASE("_TestLogging.test_enable_logging", "[logging][conformance]") {
    const RestoreLog restore;
    const mp::Logger logger = mp::get_logger();
    std::string printed;
    logger.set_sink([&](const mp::LogRecord& record) { printed += record.text() + "\n"; });
    logger.set_level(mp::SUBWARNING);
    logger.debug("this will not be printed");
    logger.info("nor will this");
    CHECK(printed.empty());
    logger.sub_warning("but this will");
    CHECK(printed == "[SUBWARNING/MainProcess] but this will\n");
}

TEST_CASE("_TestLogging.test_level", "[logging][conformance]") {
    EVERY_START_METHOD;
    const RestoreLog restore;
    constexpr int level1 = 32;
    const mp::Logger logger = mp::get_logger();
    auto [reader, writer] = mp::Pipe(false);
    logger.set_level(level1);
    CHECK(logger.level() == level1);
    {
        Children children(method);
        children.start(send_level, writer);
        CHECK(reader.recv<int>() == level1);
        CHECK(children.join());
    }
    // There is no root logger to ask, of which Python's has this level.
    logger.set_level(mp::log_level::notset);
    {
        Children children(method);
        children.start(send_level, writer);
        CHECK(reader.recv<int>() == mp::log_level::warning);
        CHECK(children.join());
    }
}

TEST_CASE("_TestLogging.test_filename", "[logging][conformance]") {
    const RestoreLog restore;
    const mp::Logger logger = mp::get_logger();
    logger.set_level(mp::log_level::debug);
    std::string stream;
    logger.set_sink([&](const mp::LogRecord& record) {
        stream += "[" + record.level_name() + "] [" + std::string(record.filename()) + "] " +
                  record.message + "\n";
    });
    logger.info("1");
    mp::util::info("2");
    logger.debug([] { return "3"; });
    CHECK(stream == "[INFO] [logging.cpp] 1\n[INFO] [logging.cpp] 2\n[DEBUG] [logging.cpp] 3\n");
}
