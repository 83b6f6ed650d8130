// SPDX-License-Identifier: BSL-1.0
//
// A class has no answer among the types that travel to Python.
// EXPECT: Python's pickle has no such type: python::dumps takes None, bool, numbers
#include <multiprocessing/python.hpp>

#include <vector>

struct Point {
    double x = 0;
    double y = 0;
};

multiprocessing::bytes all(const std::vector<Point>& points) {
    return multiprocessing::python::dumps(points);
}
