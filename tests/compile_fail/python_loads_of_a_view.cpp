// SPDX-License-Identifier: BSL-1.0
//
// A view of what nobody owns.
// EXPECT: Python's pickle has no such type: python::loads makes None, bool, numbers
#include <multiprocessing/python.hpp>

#include <string_view>

std::string_view text(const multiprocessing::bytes& pickled) {
    return multiprocessing::python::loads<std::string_view>(pickled);
}
