// SPDX-License-Identifier: BSL-1.0
#include "support/catch.hpp"

#include <multiprocessing/pickle/message.hpp>

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace pickle = multiprocessing::pickle;

namespace type_name_test {
struct Known {
    int x = 0;
};
struct Stranger {
    int x = 0;
};
template <class T>
struct Wrapped {
    T value{};
};
}  // namespace type_name_test

using namespace type_name_test;

TEST_CASE("types have names as people write them", "[pickle][type_name]") {
    CHECK(pickle::type_name<int>() == "int");
    CHECK(pickle::type_name<std::string>() == "std::string");
    CHECK(pickle::type_name<std::vector<std::string>>() == "std::vector<std::string>");
    CHECK(pickle::type_name<std::map<std::string, std::vector<std::unique_ptr<int>>>>() ==
          "std::map<std::string, std::vector<std::unique_ptr<int>>>");
    CHECK(pickle::type_name<std::unordered_map<int, double>>() ==
          "std::unordered_map<int, double>");
    CHECK(pickle::type_name<Wrapped<Known>>() == "type_name_test::Wrapped<type_name_test::Known>");
}

TEST_CASE("a type is told by its hash from every other", "[pickle][type_name]") {
    CHECK(pickle::type_hash<int>() == pickle::type_hash<int>());
    CHECK(pickle::type_hash<int>() != pickle::type_hash<unsigned>());
    CHECK(pickle::type_hash<Known>() != pickle::type_hash<Stranger>());
}

TEST_CASE("a hash gives the name of a type that the program pickles", "[pickle][type_name]") {
    pickle::Buffer buffer;
    pickle::dump(Known{1}, buffer);
    CHECK(pickle::name_of_hash(pickle::type_hash<Known>()) == "type_name_test::Known");
    CHECK_THAT(pickle::name_of_hash(pickle::type_hash<Stranger>()),
               Catch::Matchers::ContainsSubstring("unknown to this program"));
}
