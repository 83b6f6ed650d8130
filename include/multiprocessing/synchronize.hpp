// SPDX-License-Identifier: BSL-1.0
//
// `Lock`, `RLock`, `Semaphore`, `BoundedSemaphore`, `Condition`, `Event` and `Barrier` between
// processes. Answers Python's `multiprocessing.synchronize`.
//
// All are handles: copies are the same object, in whatever process they are. None keeps anything in
// the system, and none hangs because somebody who held or awaited it was killed.
#pragma once

#include <multiprocessing/synchronize/barrier.hpp>
#include <multiprocessing/synchronize/condition.hpp>
#include <multiprocessing/synchronize/event.hpp>
#include <multiprocessing/synchronize/lock.hpp>
#include <multiprocessing/synchronize/semaphore.hpp>
