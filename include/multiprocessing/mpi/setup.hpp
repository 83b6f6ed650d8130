// SPDX-License-Identifier: BSL-1.0
//
// What a rank is told of a pool that it is to be part of.
#pragma once

#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/runtime/pool/process_engine.hpp>
#include <multiprocessing/runtime/start_method.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace multiprocessing::mpi {

struct PoolSetup {
    runtime::Action initializer;
    // Of local pools alone.
    std::uint32_t processes = 0;
    runtime::pool::WorkerLimits limits;
    std::optional<runtime::StartMethod> method;

    void save(pickle::OArchive& archive) const {
        initializer.save(archive);
        archive.put(processes);
        archive.put(limits);
        archive.put(static_cast<std::int32_t>(method ? static_cast<int>(*method) : -1));
    }
    [[nodiscard]] static PoolSetup load(pickle::IArchive& archive) {
        PoolSetup setup;
        setup.initializer.load(archive);
        setup.processes = archive.get<std::uint32_t>();
        setup.limits = archive.get<runtime::pool::WorkerLimits>();
        const auto method = archive.get<std::int32_t>();
        if (method >= 0) setup.method = static_cast<runtime::StartMethod>(method);
        return setup;
    }

    /// Whatever the master is, a local pool goes on after the death of a worker, which costs its task.
    [[nodiscard]] runtime::pool::Settings local_settings() const {
        runtime::pool::Settings settings{};
        settings.processes = processes;
        settings.initializer = initializer;
        settings.limits = limits;
        settings.method = method;
        return settings;
    }
};

}  // namespace multiprocessing::mpi
