// SPDX-License-Identifier: BSL-1.0
//
// Answers Python's module `concurrent.futures`.
#pragma once

#include <multiprocessing/concurrent/futures/future.hpp>
#include <multiprocessing/concurrent/futures/process.hpp>
#include <multiprocessing/concurrent/futures/thread.hpp>
#include <multiprocessing/concurrent/futures/wait.hpp>

namespace multiprocessing::concurrent::futures {

using multiprocessing::BrokenExecutor;
using multiprocessing::BrokenProcessPool;
using multiprocessing::BrokenThreadPool;

}  // namespace multiprocessing::concurrent::futures
