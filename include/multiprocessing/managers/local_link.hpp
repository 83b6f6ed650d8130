// SPDX-License-Identifier: BSL-1.0
//
// The way of a server's own proxies, the values of a dict say, to its objects.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/connection/address.hpp>
#include <multiprocessing/managers/caller.hpp>
#include <multiprocessing/managers/link.hpp>
#include <multiprocessing/managers/server_state.hpp>
#include <multiprocessing/pickle/buffer.hpp>
#include <multiprocessing/pickle/cargo.hpp>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

namespace multiprocessing::managers {

/// The server's own way to its objects: a call is executed by the thread that makes it.
class LocalLink final : public Link {
public:
    explicit LocalLink(std::shared_ptr<ServerState> state) : state_(std::move(state)) {}

    [[nodiscard]] std::uint64_t server() const override { return state_->id(); }
    [[nodiscard]] const connection::Address& address() const override { return state_->address(); }
    [[nodiscard]] const std::optional<bytes>& authkey() const override { return authkey_; }
    void release(std::uint64_t object) noexcept override {
        References& references = state_->references();
        references.release(references.own_session(), object);
    }

protected:
    [[nodiscard]] bool is_local() const noexcept override { return true; }
    inline void exchange(const pickle::Buffer& request, pickle::Cargo& cargo, Patience,
                         Answer& answer) override;  // "inline" here: see RemoteLink

private:
    std::shared_ptr<ServerState> state_;
    std::optional<bytes> authkey_;
};

/// That of a server in this process.
[[nodiscard]] inline LinkPointer local_link(ServerState& state) {
    const std::scoped_lock lock(state.local_link_mutex);
    LinkPointer link = state.local_link.lock();
    if (!link) {
        link = std::make_shared<LocalLink>(state.shared_from_this());
        state.local_link = link;
    }
    return link;
}

// ---------------------------------------------------------------------------------------------------

inline void LocalLink::exchange(const pickle::Buffer& request, pickle::Cargo& cargo, Patience,
                                Answer& answer) {
    auto sent = cargo.deliver();
    pickle::Cargo in(sent.tickets, std::move(sent.descriptors));
    std::optional<pickle::Cargo> out;
    References& references = state_->references();
    const Caller caller(references, state_->stopping(), references.own_session(), -1);
    state_->execute(caller, request.span(), in, *answer.buffer, out, true);
    auto back = out->deliver();
    answer.tickets = std::move(back.tickets);
    answer.cargo = &answer.arrived.emplace(answer.tickets, std::move(back.descriptors));
    answer.body = answer.buffer->span();
}

}  // namespace multiprocessing::managers
