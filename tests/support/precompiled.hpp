// SPDX-License-Identifier: BSL-1.0
//
// What most tests include, compiled once. A header of ours that forgets an include finds it here,
// which is why each is also compiled alone.
#pragma once

#include <support/catch.hpp>

#include <boost/interprocess/mapped_region.hpp>
#include <boost/serialization/serialization.hpp>
#include <boost/serialization/split_free.hpp>
#include <boost/serialization/split_member.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>
