// SPDX-License-Identifier: BSL-1.0
#include <multiprocessing/shm/processes.hpp>

#include "shm/helpers.hpp"
#include "support/catch.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

using namespace support;

TEST_CASE("a process lives until it has ended, not until it is reaped", "[shm][processes]") {
    CHECK(shm::alive(shm::self()));
    CHECK_FALSE(shm::alive(0));
    const auto stage = make_stage();
    Child child([&] {
        stage->reach(1);
        stage->await(2);
    });
    REQUIRE(stage->await(1));
    CHECK(child.holder() != shm::self());
    CHECK(shm::alive(child.holder()));
    stage->reach(2);
    CHECK(child.end() == 0);
    CHECK_FALSE(shm::alive(child.holder()));
    CHECK(child.wait() == 0);
    CHECK_FALSE(shm::alive(child.holder()));
}

TEST_CASE("each process has an id of its own", "[shm][processes]") {
    const auto ids = shm::Shared<std::array<std::uint32_t, 3>>::make(0);
    Child child([&] {
        (*ids)[0] = shm::self();
        const int pid = os::fork();  // by nobody's leave: what a program does that knows us not
        if (pid == 0) {
            (*ids)[1] = shm::self();
            const auto own = shm::Ref::create(8);
            ::_exit(own.counted().counts == 1 ? 0 : 1);
        }
        int status = 0;
        ::waitpid(pid, &status, 0);
        return status == 0;
    });
    const auto id = child.holder();
    CHECK(child.wait() == 0);
    CHECK((*ids)[0] == id);
    CHECK((*ids)[1] != id);
    CHECK((*ids)[1] != shm::self());
    shm::release_process((*ids)[1]);  // nobody else knows of it
}

TEST_CASE("a slot that was prepared for nobody is given back", "[shm][processes]") {
    const NoLeak leak;
    shm::HolderId id = 0;
    {
        const auto object = shm::Ref::create(8);
        {
            const shm::ChildSlot slot(shm::Inherits::handles);
            id = slot.id();
            CHECK(object.counted().counts == 2);
            CHECK(shm::alive(id));  // it will live
        }
        CHECK(object.counted().counts == 1);
    }
    CHECK_FALSE(shm::alive(id));
    shm::release_process(id);  // idempotent
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a place is found among many that are taken", "[shm][processes]") {
    const NoLeak leak;
    {
        // More in a row than a transaction has room for.
        shm::Processes& processes = shm::Processes::instance();
        std::vector<shm::HolderId> taken;
        for (std::size_t i = 0; i < 2 * shm::Journal::capacity; ++i) {
            taken.push_back(processes.reserve());
        }
        auto& next = shm::Arena::instance().header().next_slot;
        const auto after = next;
        next = after - taken.size();
        const auto id = processes.reserve();
        CHECK(id > taken.back());
        CHECK(processes.slot(id).holder == id);
        processes.release(id);
        for (const auto other : taken) processes.release(other);
        next = after;
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("a child whose place was swept takes another", "[shm][processes]") {
    const NoLeak leak;
    {
        const auto object = shm::Ref::create(8);
        shm::ChildSlot slot(shm::Inherits::handles);
        shm::release_process(slot.id());  // as after the death of the parent
        const auto [reader, writer] = multiprocessing::os::pipe();
        const int pid = ::fork();
        if (pid == 0) {
            slot.adopt();
            const shm::HolderId mine = shm::self();
            const bool another = mine != slot.id() && shm::alive(mine);
            const bool told = ::write(writer.get(), &mine, sizeof mine) == sizeof mine;
            ::_exit(another && told && shm::Ref::create(8) ? 0 : 1);
        }
        int status = -1;
        ::waitpid(pid, &status, 0);
        CHECK(status == 0);
        CHECK(object.counted().counts == 1);
        shm::HolderId theirs = 0;
        CHECK(::read(reader.get(), &theirs, sizeof theirs) == sizeof theirs);
        shm::release_process(theirs);
    }
    CHECK(leak.leaked() == 0);
}

TEST_CASE("what a dead parent's dead children held is swept up by those who start others",
          "[shm][processes][crash]") {
    const NoLeak leak;
    {
        Child parent([] {
            for (int i = 0; i < 5; ++i) {
                auto* child = new Child([] {
                    static_cast<void>(new shm::Ref(shm::Ref::create(100)));
                    die();
                });
                static_cast<void>(child->end());
            }
            die();
        });
        CHECK(parent.wait() == -SIGKILL);
        CHECK(leak.leaked() > 0);
        CHECK(eventually([&] {
            Child([] {}).wait();
            return leak.leaked() == 0;
        }));
    }
}

TEST_CASE("a parent that dies before its child has started takes the slot with it",
          "[shm][processes][crash]") {
    const NoLeak leak;
    {
        const auto object = shm::Ref::create(8);
        Child parent([&] {
            const shm::ChildSlot slot(shm::Inherits::handles);
            die();
        });
        CHECK(parent.wait() == -SIGKILL);
        CHECK(eventually([&] {
            Child([] {}).wait();
            return object.counted().counts == 1;
        }));
    }
    CHECK(leak.leaked() == 0);
}
