// SPDX-License-Identifier: BSL-1.0
//
// Python's `multiprocessing` for C++: everything there is, with one include.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/concurrent/futures.hpp>
#include <multiprocessing/connection.hpp>
#include <multiprocessing/context.hpp>
#include <multiprocessing/dummy.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/managers.hpp>
#include <multiprocessing/none.hpp>
#include <multiprocessing/pickle.hpp>
#include <multiprocessing/pool.hpp>
#include <multiprocessing/pool_concept.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/python.hpp>
#include <multiprocessing/queues.hpp>
#include <multiprocessing/range.hpp>
#include <multiprocessing/reduction.hpp>
#include <multiprocessing/shared_heap.hpp>
#include <multiprocessing/shared_memory.hpp>
#include <multiprocessing/sharedctypes.hpp>
#include <multiprocessing/synchronize.hpp>
#include <multiprocessing/this_task.hpp>
#include <multiprocessing/timeout.hpp>
#include <multiprocessing/util.hpp>
#include <multiprocessing/version.hpp>
