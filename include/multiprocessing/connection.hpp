// SPDX-License-Identifier: BSL-1.0
//
// Messages between processes: `mp::Connection`, `mp::Pipe`, and in `mp::connection` `Listener`,
// `Client`, `Address` and `wait`. Answers Python's `multiprocessing.connection`.
#pragma once

#include <multiprocessing/connection/address.hpp>
#include <multiprocessing/connection/client.hpp>
#include <multiprocessing/connection/listener.hpp>
#include <multiprocessing/connection/pipe.hpp>
#include <multiprocessing/connection/wait.hpp>
