#include "workload/fleet_yaml.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/file.h"
#include "base/prng.h"

namespace capstan::workload {
namespace {

fleet::FleetSpec parse_one(std::string_view yaml) {
  auto spec = parse_fleet(yaml, "t.yaml");
  if (!spec) ADD_FAILURE() << spec.error().front().text();
  return spec ? *std::move(spec) : fleet::FleetSpec{};
}

constexpr std::string_view kLab = R"(
fleet: lab
classes:
- {name: desk, cpus: 32, memory: 128GiB, gpus: 1, gpu_model: rtx4090, shared_gpus: true, gpu_slices: [0.25, 0.5]}
regions:
- name: r
  clusters:
  - name: c#
    count: 2
    blocks:
    - name: b#
      count: 2
      ultraservers: [{kind: u-p6e-gb200x36, count: 2, spares: 1, name: u#}]
      hosts: [{class: desk, name: desk}, {class: m8g.48xlarge, count: 2, name: cpu#}]
)";

TEST(FleetYamlTest, NamesAreMadeOfThePathAndTheNumber) {
  const fleet::FleetSpec spec = parse_one(kLab);
  fleet::Topology topology;
  ASSERT_TRUE(fleet::append(topology, spec));
  EXPECT_EQ(topology.hosts(), static_cast<std::size_t>(fleet::hosts_of(spec)));
  EXPECT_EQ(topology.hosts(), 4u * (2 * 9 + 1 + 2));
  EXPECT_EQ(topology.name(fleet::HostId{0}), "c0-b0-u0-t00");
  for (const char* host : {"c1-b1-u1-t08", "c0-b1-cpu1", "c1-b0-cpu0"})
    EXPECT_TRUE(topology.find(host)) << host;
  const auto domain = topology.find_domain("c1-b0-u1");
  ASSERT_TRUE(domain);
  EXPECT_EQ(topology.domain(*domain).hosts, 9);
  EXPECT_EQ(topology.domain(*domain).spares, 1);
  EXPECT_EQ(topology.host_class(topology.domain(*domain).first).gpu_model, "gb200");
}

TEST(FleetYamlTest, ClassesOfTheFileAreTakenWithAllThatTheySay) {
  const fleet::FleetSpec spec = parse_one(kLab);
  const auto desk = std::ranges::find(spec.classes, "desk", &fleet::HostClass::name);
  ASSERT_NE(desk, spec.classes.end());
  EXPECT_EQ(desk->capacity, (fleet::Capacity{32'000, std::int64_t{128} << 30, 1, 0}));
  EXPECT_TRUE(desk->fractional);
  EXPECT_EQ(desk->gpu_slices, (std::vector<std::int64_t>{250, 500}));
  EXPECT_EQ(spec.classes.size(), 3u);  // only those that are used
}

TEST(FleetYamlTest, StoredFormReadsBackEqual) {
  const fleet::FleetSpec spec = parse_one(kLab);
  const auto again = fleet::fleet_from_json(Json::parse(fleet::to_json(spec).dump()).value());
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(*again, spec);
}

TEST(FleetYamlTest, AFleetWhoseNamesAreTakenAddsNothing) {
  fleet::Topology topology;
  ASSERT_TRUE(fleet::append(topology, parse_one(kLab)));
  const std::size_t hosts = topology.hosts();
  const auto again = fleet::append(topology, parse_one(kLab));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Code::kConflict);
  EXPECT_EQ(topology.hosts(), hosts);
}

TEST(FleetYamlTest, TheExamplesAreRight) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator("examples/fleets")) {
    const std::string text = read_file(entry.path()).value();
    if (!text.contains("\nfleet: ")) continue;  // a recipe of a benchmark
    const auto parsed = parse_fleet(text, entry.path().string());
    EXPECT_TRUE(parsed) << (parsed ? "" : parsed.error().front().text());
    ++files;
  }
  EXPECT_GE(files, 3);
}

// Goal: each malformed file gets exactly the messages that its golden file holds, for a newcomer to act on.
// Method: every tests/golden/fleets/NAME.yaml against NAME.expected; CAPSTAN_UPDATE_GOLDEN=1 rewrites them.
TEST(FleetYamlTest, MalformedFilesGetTheirGoldenMessages) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator("tests/golden/fleets")) {
    if (entry.path().extension() != ".yaml") continue;
    ++files;
    const std::string name = entry.path().filename();
    const auto parsed = parse_fleet(read_file(entry.path()).value(), name);
    ASSERT_FALSE(parsed) << name << " was accepted";
    std::string text;
    for (const Diagnostic& diagnostic : parsed.error()) text += diagnostic.text() + "\n";
    auto expected = entry.path();
    expected.replace_extension(".expected");
    if (std::getenv("CAPSTAN_UPDATE_GOLDEN") != nullptr) {
      ASSERT_TRUE(write_file_atomic(expected, text));
    }
    EXPECT_EQ(text, read_file(expected).value_or("")) << name;
  }
  EXPECT_GE(files, 6);
}

// Goal: no input crashes the reader. Method: seeded mutations of a valid file, a thousand of them; what is
// accepted can be added to a topology unless it is large.
TEST(FleetYamlTest, MutatedFilesNeverCrash) {
  Prng prng(11);
  int refused = 0;
  for (int round = 0; round < 1000; ++round) {
    std::string text(kLab);
    for (std::int64_t edits = prng.between(1, 6); edits > 0; --edits) {
      const auto at = prng.below(text.size());
      if (prng.below(2) == 0) {
        text[at] = "{}[]:,-&*!|>'\"%@`\n\t 0a#"[prng.below(23)];
      } else {
        text.erase(at, prng.below(4) + 1);
      }
      if (text.empty()) text = "x";
    }
    const auto parsed = parse_fleet(text, "t.yaml");
    refused += !parsed.has_value();
    fleet::Topology topology;
    if (parsed && fleet::hosts_of(*parsed) < 10'000) (void)fleet::append(topology, *parsed);
  }
  EXPECT_GT(refused, 300);
}

}  // namespace
}  // namespace capstan::workload
