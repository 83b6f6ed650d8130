// SPDX-License-Identifier: BSL-1.0
#pragma once
#include <boost/archive/binary_oarchive.hpp>
