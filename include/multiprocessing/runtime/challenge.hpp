// SPDX-License-Identifier: BSL-1.0
//
// How a process proves to another that it knows a key without saying it: CPython's challenge and its
// response, message by message. Answers `_create_response`, `_verify_challenge` and what is around
// them in Python's `multiprocessing.connection`.
#pragma once

#include <multiprocessing/bytes.hpp>
#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/hmac.hpp>
#include <multiprocessing/os/random.hpp>
#include <multiprocessing/runtime/challenge_words.hpp>

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace multiprocessing::runtime {

/// No message of the handshake is longer.
inline constexpr std::size_t longest_handshake_message = 256;

namespace challenge {

inline constexpr std::size_t random_bytes = 40;
// Python before 3.12 knows MD5 alone, and names no digest.
inline constexpr std::size_t legacy_challenge = 20;
inline constexpr std::size_t legacy_response = 16;

/// "{sha256}the rest": the digest that a message names, and its rest. MD5 for one of the old kind.
struct Named {
    const os::Digest* digest;  // null if it names none
    std::string_view payload;
};
[[nodiscard]] inline Named take_apart(std::string_view message) {
    if (message.size() == legacy_challenge || message.size() == legacy_response) {
        return {nullptr, message};
    }
    if (message.starts_with('{')) {
        const auto end = message.find('}');
        const os::Digest* const digest =
            end == std::string_view::npos ? nullptr : os::find_digest(message.substr(1, end - 1));
        if (digest != nullptr) return {digest, message.substr(end + 1)};
    }
    throw AuthenticationError("unsupported message length, missing digest prefix, or unsupported "
                              "digest: the other end does not speak multiprocessing's protocol");
}

[[nodiscard]] inline const os::Digest& digest_or_md5(const Named& named) noexcept {
    return named.digest != nullptr ? *named.digest : *os::find_digest("md5");
}

[[nodiscard]] inline std::string hmac(const os::Digest& digest, const bytes& key,
                                      std::string_view message) {
    auto code = os::hmac(digest, key.span(), message);
    if (!code) {
        throw AuthenticationError("OpenSSL refuses to compute the HMAC of a challenge with " +
                                  std::string(digest.name));
    }
    return *std::move(code);
}

}  // namespace challenge

/// What is to be proved: the digest's name and 40 random bytes. Throws ValueError for a digest that is
/// none of CPython's.
[[nodiscard]] inline std::string make_challenge(std::string_view digest) {
    if (os::find_digest(digest) == nullptr) {
        throw ValueError("unsupported digest for a challenge: " + std::string(digest));
    }
    std::array<std::byte, challenge::random_bytes> random;
    os::fill_with_random(random);
    return "{" + std::string(digest) + "}" + std::string(challenge::text(random));
}

/// The proof that one knows the key.
[[nodiscard]] inline std::string create_response(const bytes& key, std::string_view message) {
    const challenge::Named asked = challenge::take_apart(message);
    std::string code = challenge::hmac(challenge::digest_or_md5(asked), key, message);
    if (asked.digest == nullptr) return code;
    return "{" + std::string(asked.digest->name) + "}" + code;
}

/// Throws AuthenticationError for a wrong one.
inline void verify_response(const bytes& key, std::string_view message, std::string_view response) {
    const challenge::Named given = challenge::take_apart(response);
    const os::Digest& digest = challenge::digest_or_md5(given);
    const std::string expected = challenge::hmac(digest, key, message);
    if (given.payload.size() != expected.size()) {
        throw AuthenticationError("expected " + std::string(digest.name) + " of length " +
                                  std::to_string(expected.size()) + ", got " +
                                  std::to_string(given.payload.size()));
    }
    if (!os::same_secret(expected, given.payload)) {
        throw AuthenticationError("digest received was wrong: the other end has another authkey");
    }
}

/// One half of a handshake, of who asks for the proof: `deliver_challenge`.
class ChallengeDelivery {
public:
    explicit ChallengeDelivery(std::string_view digest = "sha256")
        : challenge_(make_challenge(digest)) {}
    /// To be sent first.
    [[nodiscard]] std::string question() const {
        return std::string(challenge::prefix) + challenge_;
    }
    /// Judges the answer. To be sent then is `welcome`, or `failure` if this throws.
    void check(const bytes& key, std::span<const std::byte> answer) const {
        verify_response(key, challenge_, challenge::text(answer));
    }

private:
    std::string challenge_;
};

/// The other half, of who proves: `answer_challenge`. What is to be sent in answer to the question.
/// Throws AuthenticationError when that is none.
[[nodiscard]] inline std::string answer_to(const bytes& key, std::span<const std::byte> question) {
    std::string_view message = challenge::text(question);
    if (!message.starts_with(challenge::prefix)) {
        throw AuthenticationError("Protocol error, expected challenge: the other end does not ask for "
                                  "an authkey, or is no listener of multiprocessing's");
    }
    message.remove_prefix(challenge::prefix.size());
    if (message.size() < challenge::legacy_challenge) {
        throw AuthenticationError("challenge too short: " + std::to_string(message.size()) + " bytes");
    }
    return create_response(key, message);
}

/// Throws AuthenticationError unless the verdict is a welcome.
inline void check_welcome(std::span<const std::byte> verdict) {
    if (challenge::text(verdict) != challenge::welcome) {
        throw AuthenticationError("digest sent was rejected: the other end has another authkey");
    }
}

/// Both halves, message by message and without a socket: who listens asks first, then who connects.
/// Nothing is answered before the listener has been given its proof.
///
///     Handshake shake(Handshake::Side::client, key);
///     send(shake.start());
///     while (!shake.done()) send(shake.receive(next_message()));   // empty: nothing to be sent
class Handshake {
public:
    enum class Side { listener, client };

    Handshake(Side side, bytes key) : side_(side), key_(std::move(key)) {}

    /// What is to be sent before anything is received.
    [[nodiscard]] std::string start() {
        if (side_ == Side::listener) return ask();
        stage_ = Stage::question;
        return "";
    }
    /// Takes the other's next message; the result is to be sent. Throws AuthenticationError: then
    /// farewell() is to be sent, and nothing that follows is taken.
    [[nodiscard]] std::string receive(std::span<const std::byte> message);
    [[nodiscard]] bool done() const noexcept { return stage_ == Stage::done; }
    /// What the other is still to be told after a failure, or nothing.
    [[nodiscard]] std::string_view farewell() const noexcept {
        return stage_ == Stage::refused ? challenge::failure : std::string_view();
    }

private:
    enum class Stage {
        answer,  // is what comes next
        question,
        verdict,
        done,
        refused,  // the other's proof was none
        failed,
    };

    [[nodiscard]] std::string ask() {
        delivery_.emplace();
        stage_ = Stage::answer;
        return delivery_->question();
    }

    Side side_;
    bytes key_;
    Stage stage_ = Stage::failed;
    std::optional<ChallengeDelivery> delivery_;
};

inline std::string Handshake::receive(std::span<const std::byte> message) {
    // Where it stays if the message is not what it should be.
    const Stage stage =
        std::exchange(stage_, stage_ == Stage::answer ? Stage::refused : Stage::failed);
    switch (stage) {
    case Stage::answer:
        delivery_->check(key_, message);
        stage_ = side_ == Side::listener ? Stage::question : Stage::done;
        return std::string(challenge::welcome);
    case Stage::question: {
        std::string answer = answer_to(key_, message);
        stage_ = Stage::verdict;
        return answer;
    }
    case Stage::verdict:
        check_welcome(message);
        if (side_ == Side::client) return ask();
        stage_ = Stage::done;
        return "";
    case Stage::done:
    case Stage::refused:
    case Stage::failed: break;
    }
    throw AuthenticationError("a message that is no part of the handshake");
}

}  // namespace multiprocessing::runtime
