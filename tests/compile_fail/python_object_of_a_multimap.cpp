// SPDX-License-Identifier: BSL-1.0
//
// A dict has each key once.
// EXPECT: (could not convert 'map' from|no viable conversion from returned value)
#include <multiprocessing/python.hpp>

#include <map>
#include <string>

multiprocessing::python::object made(const std::multimap<std::string, int>& map) { return map; }
