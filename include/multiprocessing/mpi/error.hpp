// SPDX-License-Identifier: BSL-1.0
//
// What becomes of the run when a rank cannot be reached any more.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/stdio.hpp>

#include <concepts>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>

// The C interface alone.
#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1
#endif
#ifndef MPICH_SKIP_MPICXX
#define MPICH_SKIP_MPICXX 1
#endif
#include <mpi.h>

namespace multiprocessing::mpi {

/// A rank has died, or MPI cannot reach it.
class RankLostError : public ProcessError {
public:
    RankLostError(const std::string& what, int rank) : ProcessError(what), rank_(rank) {}
    explicit RankLostError(const std::string& what) : ProcessError(what) {}
    /// Of MPI_COMM_WORLD, or of the communicator that the pool was made with; -1: it is not known.
    [[nodiscard]] int rank() const noexcept { return rank_; }

private:
    int rank_ = -1;
};

/// What is done when a rank is lost. MPI has no way to go on without it, so there are two:
///
/// - `ErrorHandler::abort()`, the default: says which rank it was, on stderr, and ends all of them with
///   MPI_Abort. Nobody waits for a result that cannot come.
/// - `ErrorHandler::raise()`: all that is under way in the pools, and all that they are asked for from
///   then on, throws RankLostError, so that the program may save what it has. At its end the ranks that
///   are left are ended with MPI_Abort. For this the launcher must leave the others alone (Open MPI's
///   `mpiexec --enable-recovery`, MPICH's `-disable-auto-cleanup`): by default it kills them itself.
///
/// Any function that takes a `const RankLostError&` is one too: when it returns, it goes on as with raise().
/// It is called in whichever thread finds out.
class ErrorHandler {
public:
    template <class F>
        requires std::invocable<F&, const RankLostError&> &&
                 (!std::same_as<std::decay_t<F>, ErrorHandler>)
    ErrorHandler(F handler) : handler_(std::move(handler)) {
        if (!handler_) throw ValueError("mpi::ErrorHandler: the function is null");
    }

    [[nodiscard]] static ErrorHandler abort() {
        return ErrorHandler([](const RankLostError& error) {
            os::write_to_stderr("multiprocessing::mpi: " + std::string(error.what()) +
                                "; the run ends here\n");
            MPI_Abort(MPI_COMM_WORLD, 1);
        });
    }
    [[nodiscard]] static ErrorHandler raise() {
        return ErrorHandler([](const RankLostError&) {});
    }

    void operator()(const RankLostError& error) const { handler_(error); }

private:
    std::function<void(const RankLostError&)> handler_;
};

}  // namespace multiprocessing::mpi
