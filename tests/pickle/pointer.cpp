// SPDX-License-Identifier: BSL-1.0
//
// Objects behind pointers: shared, owned, polymorphic, in cycles.
#include "support/catch.hpp"

#include <multiprocessing/pickle.hpp>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

namespace mp = multiprocessing;
using Catch::Matchers::ContainsSubstring;

namespace pointer_test {

struct Shape {
    std::string name;
    virtual ~Shape() = default;
    [[nodiscard]] virtual double area() const = 0;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& name;
    }
};
struct Square : Shape {
    double side = 0;
    [[nodiscard]] double area() const override { return side * side; }
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& boost::serialization::base_object<Shape>(*this) & side;
    }
};
struct Circle : Shape {
    [[nodiscard]] double area() const override { return 3; }
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& boost::serialization::base_object<Shape>(*this);
    }
};
struct NotExported : Shape {
    [[nodiscard]] double area() const override { return 0; }
};
struct Registered : Shape {
    [[nodiscard]] double area() const override { return 7; }
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& boost::serialization::base_object<Shape>(*this);
    }
};
struct Drawing {
    std::unique_ptr<Shape> shape;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar.template register_type<Registered>();
        ar& shape;
    }
};

struct Left : virtual Shape {
    int l = 0;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& boost::serialization::base_object<Shape>(*this) & l;
    }
};
struct Both : Left {
    int b = 0;
    [[nodiscard]] double area() const override { return b; }
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& boost::serialization::base_object<Left>(*this) & b;
    }
};

struct Node {
    int value = 0;
    std::vector<std::unique_ptr<Node>> children;
    Node* parent = nullptr;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& value& children& parent;
    }
};

struct Cyclic : std::enable_shared_from_this<Cyclic> {
    std::shared_ptr<Cyclic> next;
    std::weak_ptr<Cyclic> back;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& next& back;
    }
};

// A vector of objects and a pointer to one of them: the elements move while they are read.
struct Team {
    struct Member {
        std::string name;
        template <class Archive>
        void serialize(Archive& ar, unsigned) {
            ar& name;
        }
    };
    std::vector<Member> members;
    Member* leader = nullptr;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& members& leader;
    }
};

struct Chain {
    std::unique_ptr<Chain> next;
    char end = 0;  // after the rest, so that no compiler makes a loop of the recursion
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& next;
        ar& end;
    }
    Chain() = default;
    Chain(Chain&&) = default;
    Chain& operator=(Chain&&) = default;
    ~Chain() {
        while (next) next = std::move(next->next);
    }
};

struct NoDefault {
    explicit NoDefault(int value) : x(value) {}
    int x;
    template <class Archive>
    void serialize(Archive&, unsigned) {}
};

struct Two {
    std::unique_ptr<int> owner;
    std::shared_ptr<int> sharer;
    template <class Archive>
    void serialize(Archive& ar, unsigned) {
        ar& owner& sharer;
    }
};

}  // namespace pointer_test

BOOST_CLASS_EXPORT(pointer_test::Square)
BOOST_CLASS_EXPORT_GUID(pointer_test::Circle, "a circle")
BOOST_CLASS_EXPORT(pointer_test::Both)

namespace boost::serialization {
template <class Archive>
void save_construct_data(Archive& ar, const pointer_test::NoDefault* object, unsigned) {
    ar << object->x;
}
template <class Archive>
void load_construct_data(Archive& ar, pointer_test::NoDefault* object, unsigned) {
    int x = 0;
    ar >> x;
    ::new (object) pointer_test::NoDefault(x);
}
}  // namespace boost::serialization

using namespace pointer_test;

namespace {
template <class T>
T round_trip(const T& value) {
    return mp::pickle::loads<T>(mp::pickle::dumps(value));
}
}  // namespace

TEST_CASE("an exported class comes back from behind a pointer to its base", "[pickle][pointer]") {
    auto square = std::make_unique<Square>();
    square->side = 3;
    square->name = "s";
    std::vector<std::unique_ptr<Shape>> shapes;
    shapes.push_back(std::move(square));
    shapes.push_back(std::make_unique<Circle>());
    shapes.push_back(nullptr);
    const auto back = round_trip(shapes);
    REQUIRE(back.size() == 3);
    CHECK(back[0]->area() == 9);
    CHECK(back[0]->name == "s");
    CHECK(back[1]->area() == 3);
    CHECK(back[2] == nullptr);

    auto both = std::make_shared<Both>();
    both->b = 4;
    both->l = 5;
    both->name = "virtual";
    const auto as_shape = round_trip(std::shared_ptr<Shape>(both));
    CHECK(as_shape->area() == 4);
    CHECK(as_shape->name == "virtual");
    CHECK(dynamic_cast<Both&>(*as_shape).l == 5);
}

TEST_CASE("a registered class does too", "[pickle][pointer]") {
    Drawing drawing;
    drawing.shape = std::make_unique<Registered>();
    CHECK(round_trip<Drawing>(drawing).shape->area() == 7);
}

TEST_CASE("a class that is not exported says so", "[pickle][pointer]") {
    const std::unique_ptr<Shape> shape = std::make_unique<NotExported>();
    CHECK_THROWS_AS(mp::pickle::dumps(shape), mp::PicklingError);
    CHECK_THROWS_WITH(mp::pickle::dumps(shape),
                      ContainsSubstring("BOOST_CLASS_EXPORT(pointer_test::NotExported)"));
}

TEST_CASE("a class of another family in place of the exported one is refused",
          "[pickle][pointer]") {
    const std::shared_ptr<Shape> shape = std::make_shared<Circle>();
    mp::bytes pickled = mp::pickle::dumps(shape);
    const std::string text = pickled.str();
    pickled[text.find("a circle")] = std::byte{'A'};
    CHECK_THROWS_WITH(mp::pickle::loads<std::shared_ptr<Shape>>(pickled),
                      ContainsSubstring("\"A circle\""));
}

TEST_CASE("what is shared in a message is shared at the other end", "[pickle][pointer]") {
    const auto number = std::make_shared<int>(5);
    const auto numbers = round_trip(std::vector{number, number, std::make_shared<int>(5)});
    CHECK(numbers[0] == numbers[1]);
    CHECK(numbers[0] != numbers[2]);
    CHECK(numbers[0].use_count() == 2);

    auto square = std::make_shared<Square>();
    const auto [base, derived] = round_trip(std::make_pair(std::shared_ptr<Shape>(square), square));
    CHECK(base == derived);
    CHECK(base.use_count() == 2);
}

TEST_CASE("cycles come back", "[pickle][pointer]") {
    auto first = std::make_shared<Cyclic>();
    first->next = std::make_shared<Cyclic>();
    first->next->back = first;
    const auto back = round_trip(first);
    CHECK(back->next->back.lock() == back);
    CHECK(back->shared_from_this() == back);

    Node root;
    root.value = 1;
    root.children.push_back(std::make_unique<Node>());
    root.children[0]->parent = &root;
    const auto tree = round_trip<Node>(root);
    CHECK(tree.children[0]->parent == &tree);
}

TEST_CASE("a pointer to an element of a vector points to the element that was read",
          "[pickle][pointer]") {
    Team team;
    team.members.resize(1000);
    team.members[3].name = "third";
    team.leader = &team.members[3];
    const auto back = round_trip<Team>(team);
    CHECK(back.leader == &back.members[3]);
    CHECK(back.leader->name == "third");
}

TEST_CASE("a class without default constructor is made by its load_construct_data",
          "[pickle][pointer]") {
    CHECK(round_trip(NoDefault(4)).x == 4);
    CHECK(round_trip(std::make_shared<NoDefault>(4))->x == 4);
    CHECK(round_trip(std::vector{NoDefault(1), NoDefault(2)}).at(1).x == 2);
    CHECK(round_trip(std::map<int, NoDefault>{{1, NoDefault(2)}}).at(1).x == 2);
    CHECK(round_trip(std::optional(NoDefault(3)))->x == 3);
    CHECK(std::get<1>(round_trip(std::make_tuple(1, NoDefault(3), std::string("x")))).x == 3);
}

TEST_CASE("two owners of one object are refused", "[pickle][pointer]") {
    Two two;
    two.sharer = std::make_shared<int>(1);
    two.owner = std::make_unique<int>(2);
    mp::bytes pickled = mp::pickle::dumps(two);
    // hash, version, then the owner: tag and int; the sharer becomes a reference to the same.
    pickled.resize(14);
    pickled.push_back(std::byte{2});
    const std::uint64_t position = 1;
    pickled.insert(pickled.end(), reinterpret_cast<const std::byte*>(&position),
                   reinterpret_cast<const std::byte*>(&position) + sizeof position);
    CHECK_THROWS_WITH(mp::pickle::loads<Two>(pickled), ContainsSubstring("claim to own"));
}

TEST_CASE("a structure nested more deeply than the stack allows is an error, not a crash",
          "[pickle][pointer]") {
    Chain chain;
    Chain* last = &chain;
    for (int i = 0; i < 1000; ++i) last = (last->next = std::make_unique<Chain>()).get();
    auto back = round_trip<Chain>(chain);
    int length = 0;
    for (Chain* link = back.next.get(); link != nullptr; link = link->next.get()) ++length;
    CHECK(length == 1000);

    for (int i = 0; i < 1000000; ++i) last = (last->next = std::make_unique<Chain>()).get();
    CHECK_THROWS_AS(mp::pickle::dumps(chain), mp::PicklingError);

    mp::bytes deep = mp::pickle::dumps(Chain());
    deep.pop_back();  // the end,
    deep.pop_back();  // and that there is no next
    for (int i = 0; i < 1000000; ++i) {
        deep.push_back(std::byte{1});
        deep.push_back(std::byte{0});
    }
    CHECK_THROWS_AS(mp::pickle::loads<Chain>(deep), mp::UnpicklingError);
    std::thread([&] {
        CHECK_THROWS_AS(mp::pickle::loads<Chain>(deep), mp::UnpicklingError);
    }).join();
}
