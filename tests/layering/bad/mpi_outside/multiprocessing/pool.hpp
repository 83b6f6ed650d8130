// SPDX-License-Identifier: BSL-1.0
#pragma once
#include <boost/mpi.hpp>
#include <csignal>
