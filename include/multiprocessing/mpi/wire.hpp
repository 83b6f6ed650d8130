// SPDX-License-Identifier: BSL-1.0
//
// Messages of bytes between the ranks of a communicator, of any length. MPI is called by one thread at
// a time, which is the most that many an MPI allows, and never so that it would wait.
#pragma once

#include <multiprocessing/mpi/error.hpp>
#include <multiprocessing/os/clock.hpp>
#include <multiprocessing/pickle/buffer.hpp>

#include <boost/mpi/communicator.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace multiprocessing::mpi {

/// What MPI says of an error.
[[nodiscard]] inline std::string error_text(int code) {
    char text[MPI_MAX_ERROR_STRING + 1] = {};
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return "MPI error " + std::to_string(code);
    return {text, static_cast<std::size_t>(length)};
}

/// Held for every call of MPI.
inline std::mutex mpi_mutex;

/// One rank's connection to all others. *Thread safety*: any thread may send and receive.
class Wire {
public:
    /// Over a duplicate of the communicator, in which nobody else sends. All of its ranks do this at
    /// the same time.
    explicit Wire(const boost::mpi::communicator& communicator);
    Wire(const Wire&) = delete;
    Wire& operator=(const Wire&) = delete;

    [[nodiscard]] int rank() const noexcept { return rank_; }
    [[nodiscard]] int size() const noexcept { return size_; }
    [[nodiscard]] const boost::mpi::communicator& communicator() const noexcept { return communicator_; }

    /// Sends a message, which is kept until it is on its way. Does not wait. *Throws* RankLostError.
    void send(int to, pickle::Buffer&& message) {
        send(to, std::move(message), {}, nullptr);
    }
    /// The same for one whose rest lies elsewhere, where it stays until then.
    void send(int to, pickle::Buffer&& message, std::span<const std::byte> rest,
              std::shared_ptr<const void> keeps_rest);
    /// Calls accept(from, message) for what has come, in the order in which it was sent; accept may move
    /// the message away. Whether there was anything. False at once when another thread is at it.
    /// `wait()` is called now and then while a long message comes in, and may throw.
    template <class Accept, class Wait>
    bool receive(Accept accept, Wait wait);
    /// The end of it; all ranks do this at the same time, when nothing is on its way any more.
    void close() {
        const std::lock_guard lock(mpi_mutex);
        MPI_Comm_free(&raw_);
    }
    /// For how long a short message has not left: its receiver cannot be reached.
    [[nodiscard]] std::chrono::nanoseconds stalled_for() {
        if (pending_count_.load(std::memory_order_relaxed) == 0) return {};
        const std::lock_guard lock(mpi_mutex);
        progress();
        std::uint64_t since = os::nanoseconds_now();
        const std::uint64_t now = since;
        for (const Pending& each : pending_) {
            if (each.since != 0) since = std::min(since, each.since);
        }
        return std::chrono::nanoseconds(static_cast<std::int64_t>(now - since));
    }
    /// Has all that was sent left? What has not goes on only while somebody receives, or asks this.
    [[nodiscard]] bool all_sent();

private:
    // Messages that are longer go in parts, for MPI counts in ints.
    static constexpr std::size_t most = std::size_t{1} << 30;
    enum Tag : int { whole = 1, part = 2 };
    // Such a message leaves at once, if its receiver can be reached at all.
    static constexpr std::size_t is_short = 1024;
    struct Pending {
        MPI_Request request;
        std::shared_ptr<const void> keeps;
        std::uint64_t since;  // if it is short
    };

    [[nodiscard]] static MPI_Comm duplicate(const boost::mpi::communicator& communicator);
    static void check(int code, const char* call, int rank);
    void post(int to, std::span<const std::byte> bytes, const std::shared_ptr<const void>& keeps,
              bool is_last);
    void progress();
    template <class Wait>
    std::optional<int> take(Wait& wait);

    MPI_Comm raw_;
    const boost::mpi::communicator communicator_;
    const int rank_;
    const int size_;
    std::mutex role_;  // of who receives; before mpi_mutex
    pickle::Buffer incoming_;
    std::vector<pickle::Buffer> begun_;  // of those who send a message in parts
    std::vector<Pending> pending_;  // with the mutex
    std::atomic<std::size_t> pending_count_{0};
};

// ---------------------------------------------------------------------------------------------------

inline Wire::Wire(const boost::mpi::communicator& communicator)
    : raw_(duplicate(communicator)), communicator_(raw_, boost::mpi::comm_attach),
      rank_(communicator_.rank()), size_(communicator_.size()), begun_(static_cast<std::size_t>(size_)) {
    MPI_Comm_set_errhandler(raw_, MPI_ERRORS_RETURN);  // for check()
}

inline MPI_Comm Wire::duplicate(const boost::mpi::communicator& communicator) {
    const std::lock_guard lock(mpi_mutex);
    MPI_Comm made = MPI_COMM_NULL;
    MPI_Comm_dup(communicator, &made);
    return made;
}

inline void Wire::check(int code, const char* call, int rank) {
    if (code == MPI_SUCCESS) return;
    std::string text = std::string(call) + " failed";
    if (rank >= 0) text += " with rank " + std::to_string(rank);
    throw RankLostError(text + ": " + error_text(code), rank);
}

inline void Wire::send(int to, pickle::Buffer&& message, std::span<const std::byte> rest,
                       std::shared_ptr<const void> keeps_rest) {
    const auto kept = std::make_shared<const pickle::Buffer>(std::move(message));
    const std::lock_guard lock(mpi_mutex);
    post(to, kept->span(), kept, rest.empty());
    if (!rest.empty()) post(to, rest, keeps_rest, true);
}

/// With the mutex.
inline void Wire::post(int to, std::span<const std::byte> bytes, const std::shared_ptr<const void>& keeps,
                       bool is_last) {
    do {
        const auto now = bytes.first(std::min(bytes.size(), most));
        bytes = bytes.subspan(now.size());
        Pending pending{MPI_REQUEST_NULL, keeps, now.size() <= is_short ? os::nanoseconds_now() : 0};
        check(MPI_Isend(now.data(), static_cast<int>(now.size()), MPI_BYTE, to,
                        is_last && bytes.empty() ? whole : part, raw_, &pending.request),
              "MPI_Isend", to);
        int done = 0;
        check(MPI_Test(&pending.request, &done, MPI_STATUS_IGNORE), "MPI_Isend", to);
        if (done == 0) pending_.push_back(std::move(pending));
    } while (!bytes.empty());
    pending_count_.store(pending_.size(), std::memory_order_relaxed);
}

/// With the mutex.
inline void Wire::progress() {
    if (pending_.empty()) return;
    std::erase_if(pending_, [](Pending& each) {
        int done = 0;
        check(MPI_Test(&each.request, &done, MPI_STATUS_IGNORE), "MPI_Isend", -1);
        return done != 0;
    });
    pending_count_.store(pending_.size(), std::memory_order_relaxed);
}

inline bool Wire::all_sent() {
    if (pending_count_.load(std::memory_order_relaxed) == 0) return true;
    const std::lock_guard lock(mpi_mutex);
    progress();
    return pending_.empty();
}

/// The sender of a message that has come as a whole and is in incoming_ now; nothing: there is none.
/// With the role.
template <class Wait>
std::optional<int> Wire::take(Wait& wait) {
    for (;;) {
        MPI_Request request = MPI_REQUEST_NULL;
        MPI_Status status;
        int from = 0;
        pickle::Buffer* to = &incoming_;
        incoming_.clear();
        {
            const std::lock_guard lock(mpi_mutex);
            progress();
            MPI_Message message = MPI_MESSAGE_NULL;
            int found = 0;
            // The first look may be what has MPI take in what has come, for the second to find.
            for (int look = 0; look != 2 && found == 0; ++look) {
                check(MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, raw_, &found, &message, &status),
                      "MPI_Improbe", -1);
            }
            if (found == 0) return std::nullopt;
            from = status.MPI_SOURCE;
            int count = 0;
            check(MPI_Get_count(&status, MPI_BYTE, &count), "MPI_Get_count", from);
            pickle::Buffer& begun = begun_[static_cast<std::size_t>(from)];
            if (status.MPI_TAG == part || begun.size() != 0) to = &begun;
            const auto size = static_cast<std::size_t>(count);
            std::byte* const place = to->grow(std::max<std::size_t>(size, 1));
            to->truncate(to->size() - (size == 0 ? 1 : 0));
            check(MPI_Imrecv(place, count, MPI_BYTE, &message, &request), "MPI_Imrecv", from);
        }
        for (int round = 0;; ++round) {
            int done = 0;
            {
                const std::lock_guard lock(mpi_mutex);
                check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Imrecv", from);
            }
            if (done != 0) break;
            // The sender may have to be given time to go on with it, or be gone.
            if (round > 100) {
                std::this_thread::yield();
                if (round % 1024 == 0) wait();
            }
        }
        if (status.MPI_TAG == part) continue;
        if (to != &incoming_) {
            incoming_ = std::move(*to);
            *to = pickle::Buffer();
        }
        return from;
    }
}

template <class Accept, class Wait>
bool Wire::receive(Accept accept, Wait wait) {
    const std::unique_lock role(role_, std::try_to_lock);
    if (!role) return false;
    // Not for ever: what has come is to be seen to, and others have something to do, too.
    constexpr int at_most = 64;
    constexpr std::size_t much = std::size_t{256} << 10;
    constexpr std::size_t most_kept = std::size_t{16} << 20;
    std::size_t bytes = 0;
    int taken = 0;
    for (; taken != at_most && bytes < much; ++taken) {
        const auto from = take(wait);
        if (!from) break;
        bytes += incoming_.size();
        accept(*from, incoming_);
        incoming_.clear_and_shrink(most_kept);
    }
    return taken != 0;
}

}  // namespace multiprocessing::mpi
