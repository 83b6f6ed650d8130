// SPDX-License-Identifier: BSL-1.0
//
// The process that a manager starts to serve it: it begins with a word, ends when it is told to or when
// the process that has started it is gone, and is ended by force if it does not.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/connection/pipe.hpp>
#include <multiprocessing/connection/wait.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/process.hpp>
#include <multiprocessing/os/signals.hpp>
#include <multiprocessing/pickle/buffer.hpp>
#include <multiprocessing/pickle/exception.hpp>
#include <multiprocessing/process.hpp>
#include <multiprocessing/runtime/action.hpp>
#include <multiprocessing/runtime/start_method.hpp>
#include <multiprocessing/timeout.hpp>
#include <multiprocessing/util.hpp>

#include <exception>
#include <functional>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace multiprocessing::managers {

/// The server's end of the line to who has started it.
class ServerLine {
public:
    explicit ServerLine(Connection connection) : connection_(std::move(connection)) {}

    /// What everyone of them does first.
    static void begin(const runtime::Action& initializer) {
        os::ignore_interrupts();  // Ctrl-C is for those who work
        initializer();
    }
    /// It serves now; `word` is for who has started it.
    void ready(const bytes& word) const {
        bytes message("+");
        message.insert(message.end(), word.begin(), word.end());
        connection_.send_bytes(message);
    }
    /// It never will.
    void failed(const std::exception_ptr& why) const {
        pickle::Scratch message;
        const char mark = '-';
        message->append(&mark, 1);
        pickle::dump_exception(why, *message, os::this_pid(), current_process().name());
        connection_.send_bytes(message->span());
    }
    /// Until it is to end: by a message, or by the end of who has the other end; or of the process, if
    /// others have it too; or because `otherwise`, a descriptor, becomes readable.
    void wait_for_end(std::optional<int> otherwise = std::nullopt) const {
        std::vector<connection::Waitable> all{connection_, parent_process()->sentinel()};
        if (otherwise) all.emplace_back(*otherwise);
        static_cast<void>(connection::wait(all));
    }

private:
    Connection connection_;
};

/// A handle of the process, for who has started it.
class ServerProcess {
public:
    /// Starts it: `serve(line, args...)` runs there. `after` runs here when it has ended, however that
    /// was. *Throws* ProcessError when it ends before it is ready, and what it has thrown.
    template <class F, class... Args>
    ServerProcess(const std::string& name, const std::optional<runtime::ContextBase>& context,
                  Timeout patience, std::function<void()> after, F serve, const Args&... args);

    /// What it began with.
    [[nodiscard]] const bytes& word() const noexcept { return word_; }
    /// The process; nothing in others than the one that has started it.
    [[nodiscard]] std::optional<Process> process() const {
        return creator_ == os::this_pid() ? process_ : std::nullopt;
    }
    [[nodiscard]] bool ending() const noexcept { return !end_->still_active(); }
    /// Ends it, once; also at the end of this process. Does nothing in a forked child.
    void end() const { (*end_)(); }

private:
    static void end_now(const Process& process, const Connection& line, Timeout patience);

    int creator_ = os::this_pid();
    bytes word_;
    std::optional<Process> process_;
    std::optional<util::Finalize> end_;
};

// ---------------------------------------------------------------------------------------------------

template <class F, class... Args>
ServerProcess::ServerProcess(const std::string& name,
                             const std::optional<runtime::ContextBase>& context, Timeout patience,
                             std::function<void()> after, F serve, const Args&... args) {
    const auto [here, there] = Pipe();
    const Process& process = process_.emplace(
        ProcessOptions{.name = name, .daemon = false, .context = context}, serve, there, args...);
    process.start();
    there.close();
    // Its end may be seen by the line or by the sentinel, which is not in others' hands.
    static_cast<void>(connection::wait({here, process.sentinel()}));
    try {
        if (!here.poll()) throw EOFError("no word");
        word_ = here.recv_bytes();
    } catch (const EOFError&) {
        process.join();
        throw ProcessError(name + ": its server ended with exit code " +
                           std::to_string(process.exitcode().value_or(0)) +
                           " before it was ready");
    }
    if (word_.empty() || word_.front() != std::byte{'+'}) {
        process.join();
        std::rethrow_exception(pickle::load_exception(word_.span().subspan(1)));
    }
    word_.erase(word_.begin());
    // Before this process's children are joined at its end, of which the server is one.
    end_.emplace(util::FinalizeOptions{.exitpriority = 0},
                 [process, line = here, patience, after = std::move(after)] {
                     end_now(process, line, patience);
                     after();
                 });
}

inline void ServerProcess::end_now(const Process& process, const Connection& line,
                                   Timeout patience) {
    try {
        line.send_bytes("end");
    } catch (const std::system_error&) {  // it has ended
    }
    line.close();
    process.join(patience);
    if (process.is_alive()) {
        process.terminate();
        process.join(patience);
    }
    if (process.is_alive()) {
        process.kill();
        process.join();
    }
}

}  // namespace multiprocessing::managers
