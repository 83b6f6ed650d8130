// SPDX-License-Identifier: BSL-1.0
//
// All that a child is given which has none of its parent's memory, made ready by the parent: for
// spawn and for the fork server alike.
#pragma once

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/stdio.hpp>
#include <multiprocessing/pickle/cargo.hpp>
#include <multiprocessing/pickle/message.hpp>
#include <multiprocessing/runtime/preparation.hpp>
#include <multiprocessing/runtime/state.hpp>
#include <multiprocessing/runtime/this_process.hpp>
#include <multiprocessing/shm/luggage.hpp>
#include <multiprocessing/shm/processes.hpp>

#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

namespace multiprocessing::runtime {

/// Writes what the child is to run: a Target.
using TargetSaver = std::function<void(pickle::OArchive&)>;

/// Throws std::runtime_error unless a child that runs this program from the start would come to be
/// what it is to be.
inline void check_main_is_guarded(const ProcessState& state) {
    if (this_process().main_is_guarded) return;
    throw std::runtime_error(
        "cannot start process '" + state.name +
        "' by spawn or forkserver: its program runs from the start, so make "
        "`mp::freeze_support();` the first line of main, before anything is started; or start it "
        "by fork");
}

class Shipment {
public:
    /// Pickles. Throws PicklingError for what cannot travel.
    Shipment(const ProcessState& state, const TargetSaver& save);

    /// Leaves the shared objects for the child; then writes everything that is to be told.
    /// `preparation().descriptors` must be what they will be there.
    void seal(const shm::ChildSlot& child, pickle::Buffer& told);

    [[nodiscard]] Preparation& preparation() noexcept { return preparation_; }
    [[nodiscard]] int parent_sentinel() const noexcept { return parent_->sentinel->get(); }
    [[nodiscard]] int folder() const noexcept { return folder_.get(); }

    /// The descriptor of the child that is to be, reserved, so that a lack of them shows before
    /// there is a child.
    [[nodiscard]] os::Fd take_reserved() noexcept { return std::move(reserved_); }

private:
    ProcessPointer parent_;
    os::Fd folder_;
    Preparation preparation_;
    pickle::Cargo cargo_{true};
    os::Fd reserved_;
};

// -------------------------------------------------------------------------------------------------

inline Shipment::Shipment(const ProcessState& state, const TargetSaver& save)
    : parent_(this_process().describe_as_parent()), folder_(state.surroundings.open_folder()),
      preparation_(state, *parent_, Starter()), reserved_(os::duplicate(parent_sentinel())) {
    pickle::Buffer target;
    pickle::OArchive archive(target, &cargo_);
    pickle::while_pickling([&] { save(archive); });
    preparation_.target.assign(target.span().begin(), target.span().end());
    preparation_.descriptors = cargo_.descriptors();
}

inline void Shipment::seal(const shm::ChildSlot& child, pickle::Buffer& told) {
    preparation_.luggage = shm::leave_luggage(child, cargo_.tickets());
    cargo_.ship_tickets();
    pickle::dump(preparation_, told);
    os::flush_standard_streams();
}

}  // namespace multiprocessing::runtime
