// SPDX-License-Identifier: BSL-1.0
//
// The reception of strangers, by itself: who has to leave, who may come in, and when.
#include <multiprocessing/runtime/reception.hpp>

#include <multiprocessing/exceptions.hpp>

#include "connection/helpers.hpp"
#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <chrono>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace mp = multiprocessing;
using namespace std::chrono_literals;
using mp::runtime::Reception;
using support::a_key;
using support::RawClient;

namespace {

RawClient admit_one(Reception& reception) {
    auto [ours, theirs] = mp::os::socket_pair();
    reception.admit(std::move(ours), {});
    return RawClient(std::move(theirs));
}

std::string proof_for(const RawClient& stranger) { return support::proof(a_key, stranger.receive()); }

bool is_ready(const Reception& reception) {
    return mp::os::poll(reception.fileno(), mp::os::poll_in, mp::os::Deadline::passed());
}

/// Whether there is nothing to be read, nor the end.
bool is_inside(const RawClient& stranger) {
    return !mp::os::poll(stranger.fileno(), mp::os::poll_in, mp::os::Deadline::passed());
}

}  // namespace

TEST_CASE("a stranger comes through with the proof", "[connection][listener]") {
    Reception reception(a_key);
    CHECK_FALSE(is_ready(reception));
    CHECK_FALSE(reception.hear());
    const RawClient stranger = admit_one(reception);
    CHECK_FALSE(is_ready(reception));
    stranger.send(proof_for(stranger));
    CHECK(is_ready(reception));
    CHECK_FALSE(reception.hear());
    CHECK(stranger.receive() == "#WELCOME#");
    stranger.send(mp::runtime::ChallengeDelivery().question());
    CHECK_FALSE(reception.hear());
    CHECK(stranger.receive().size() == 40);
    CHECK_FALSE(is_ready(reception));
    stranger.send("#WELCOME#");
    auto guest = reception.hear();
    REQUIRE(guest);
    CHECK_FALSE(is_ready(reception));
    CHECK_FALSE(reception.dismiss_one());
    RawClient(std::move(guest->socket)).send("it is him");
    CHECK(stranger.receive() == "it is him");
}

TEST_CASE("the next comes in when the one before is through, or has had his chance",
          "[connection][listener]") {
    Reception reception(a_key);
    CHECK(reception.next_admission().is_passed());
    RawClient leaves = admit_one(reception);
    CHECK_FALSE(reception.next_admission().is_passed());
    leaves.close();
    CHECK_FALSE(reception.hear());
    CHECK(reception.next_admission().is_passed());
    const RawClient lies = admit_one(reception);
    lies.send("rubbish");
    CHECK_THROWS_AS(reception.hear(), mp::AuthenticationError);
    CHECK(reception.next_admission().is_passed());
    const RawClient silent = admit_one(reception);
    const auto admission = reception.next_admission();
    CHECK_FALSE(admission.is_passed());
    CHECK(admission.remaining() < 1s);
    CHECK(support::eventually([&] { return admission.expired(); }));
    RawClient leaves_too = admit_one(reception);
    leaves_too.close();
    CHECK_FALSE(reception.hear());
    CHECK(reception.next_admission().is_passed());
}

TEST_CASE("who has said nothing for longest makes room", "[connection][listener]") {
    Reception reception(a_key);
    std::vector<RawClient> all;
    for (std::size_t i = 0; i < Reception::most_strangers; ++i) all.push_back(admit_one(reception));
    for (const auto& each : all) static_cast<void>(each.receive());
    all[0].write({"\0", 1});
    CHECK_FALSE(reception.hear());
    CHECK(is_inside(all[0]));
    CHECK(is_inside(all[1]));
    const RawClient late = admit_one(reception);
    CHECK(is_inside(all[0]));  // he has begun to speak
    CHECK(all[1].at_end());
    CHECK(is_inside(all[2]));
    static_cast<void>(late.receive());
    CHECK(is_inside(late));
    for (std::size_t i = 0; i < Reception::most_strangers; ++i) CHECK(reception.dismiss_one());
    CHECK_FALSE(reception.dismiss_one());
    CHECK(late.at_end());
    CHECK(all[0].at_end());
}

TEST_CASE("who has said nothing for too long has to leave", "[connection][listener]") {
    Reception reception(a_key, 30ms);
    CHECK(reception.next_expiry().is_never());
    const RawClient silent = admit_one(reception);
    const RawClient speaks = admit_one(reception);
    const auto first = reception.next_expiry();
    CHECK_FALSE(first.is_never());
    reception.expire();
    static_cast<void>(silent.receive());
    const std::string proof = proof_for(speaks);
    CHECK(support::eventually([&] { return first.expired(); }));
    // What has been said before counts from when it is heard.
    speaks.send(proof);
    CHECK_FALSE(reception.hear());
    reception.expire();
    CHECK(silent.at_end());
    CHECK(speaks.receive() == "#WELCOME#");
    CHECK(support::eventually([&] { return reception.next_expiry().expired(); }));
    reception.expire();
    CHECK(speaks.at_end());
    CHECK(reception.next_expiry().is_never());
}

TEST_CASE("a reception that is closed wakes those who wait, and takes nobody in",
          "[connection][listener]") {
    Reception reception(a_key);
    const auto [listening, unused] = mp::os::socket_pair();
    const int everything = reception.fileno_with(listening.get());
    CHECK(everything == reception.fileno_with(listening.get()));
    CHECK_FALSE(mp::os::poll(everything, mp::os::poll_in, mp::os::Deadline::passed()));
    const RawClient inside = admit_one(reception);
    static_cast<void>(inside.receive());
    reception.close();
    CHECK(inside.at_end());
    CHECK(is_ready(reception));
    CHECK(mp::os::poll(everything, mp::os::poll_in, mp::os::Deadline::passed()));
    CHECK_FALSE(reception.hear());
    CHECK(is_ready(reception));  // for the others
    CHECK(admit_one(reception).at_end());
    reception.close();
}

TEST_CASE("a forked child has no descriptor of a reception", "[connection][listener][fork]") {
    Reception reception(a_key);
    const RawClient inside = admit_one(reception);
    static_cast<void>(inside.receive());
    const auto [listening, unused] = mp::os::socket_pair();
    const int everything = reception.fileno_with(listening.get());
    support::Stage& stage = *support::make_stage();
    support::Child child([&] {
        if (mp::os::poll(reception.fileno(), mp::os::poll_in, mp::os::Deadline::passed())) {
            // POLLNVAL: there is none.
            mp::os::PollEntry entry{everything, mp::os::poll_in, 0};
            const bool gone = mp::os::poll({&entry, 1}, mp::os::Deadline::passed()) == 1 &&
                              (entry.revents & mp::os::poll_invalid) != 0;
            stage.reach(1);
            return stage.await(2) && gone;
        }
        return false;
    });
    CHECK(stage.await(1));
    CHECK(reception.dismiss_one());
    CHECK(inside.at_end());  // though the child is there
    stage.reach(2);
    CHECK(child.wait() == 0);
}
