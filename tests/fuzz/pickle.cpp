// SPDX-License-Identifier: BSL-1.0
//
// Messages of this library's own, read as what they are not: an object, or UnpicklingError. What was
// read is written again, and that is read as the same.
//
// The first byte chooses the type.
#include <multiprocessing/pickle.hpp>

#include <multiprocessing/exceptions.hpp>
#include <multiprocessing/pickle/exception.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

namespace mp = multiprocessing;

namespace {

struct Leaf {
    std::string name;
    std::vector<std::uint32_t> numbers;
    std::unique_ptr<Leaf> next;
    template <class Archive>
    void serialize(Archive& archive, unsigned) {
        archive& name& numbers& next;
    }
};

template <class T>
void read(std::span<const std::byte> bytes, bool again) {
    const T object = mp::pickle::load_payload<T>(bytes);
    if (!again) return;
    mp::pickle::Buffer written;
    mp::pickle::save_payload(object, written);
    mp::pickle::Buffer twice;
    mp::pickle::save_payload(mp::pickle::load_payload<T>(written.span()), twice);
    if (written.size() != twice.size()) std::abort();
}

void read_one(unsigned which, std::span<const std::byte> bytes) {
    using Tree = std::map<std::string, std::vector<std::variant<int, std::string, bool>>>;
    switch (which % 10) {
    case 0: return read<std::string>(bytes, true);
    case 1: return read<std::vector<std::string>>(bytes, true);
    case 2: return read<Tree>(bytes, true);
    case 3: return read<std::tuple<bool, std::optional<double>, std::array<int, 3>>>(bytes, true);
    case 4: return read<std::unordered_map<int, std::set<std::string>>>(bytes, false);
    case 5: return read<Leaf>(bytes, true);
    case 6: return read<std::vector<std::shared_ptr<Leaf>>>(bytes, true);
    case 7: return read<std::vector<std::pair<std::uint8_t, std::wstring>>>(bytes, true);
    case 8: return read<std::vector<std::vector<bool>>>(bytes, true);
    default: static_cast<void>(mp::pickle::load_exception(bytes));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    try {
        read_one(data[0], std::as_bytes(std::span(data, size).subspan(1)));
    } catch (const mp::UnpicklingError&) {
    }
    return 0;
}
