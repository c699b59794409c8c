// Goal: tenants read from YAML and JSON are what was written, and everything wrong is said at its place.
#include "workload/tenant.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "workload/tenant_yaml.h"

namespace capstan::workload {
namespace {

std::string diagnostics(std::string_view yaml) {
  const auto parsed = parse_tenants(yaml, "t.yaml");
  if (parsed) return "";
  std::string out;
  for (const Diagnostic& each : parsed.error()) out += each.text() + "\n";
  return out;
}

TEST(TenantTest, EveryKeyOfTheYamlFormIsRead) {
  const auto parsed = parse_tenants(R"(
tenants:
- name: research
  weight: 3
  guaranteed: {gpus: 64, cpus: 640.5, memory: 2TiB}
  cells:
  - {gpu_model: gb200, trays: 18, count: 2}
  - gpu_model: gb200
    trays: 16
  limit: {gpus: 256, cpus: 1000, memory: 4TiB}
  borrow: false
  priority_max: 50
- name: evals
  parent: research
)",
                                    "t.yaml");
  ASSERT_TRUE(parsed) << parsed.error().front().text();
  const Tenant research{
      .name = "research",
      .weight = 3,
      .guaranteed = {.milli_cpus = 640'500, .memory_bytes = std::int64_t{2} << 40, .gpus = 64},
      .cells = {{"gb200", 18, 2}, {"gb200", 16, 1}},
      .milli_cpus_max = 1'000'000,
      .memory_bytes_max = std::int64_t{4} << 40,
      .gpus_max = 256,
      .borrow = false,
      .priority_max = 50};
  EXPECT_EQ(*parsed, (std::vector<Tenant>{research, {.name = "evals", .parent = "research"}}));
}

TEST(TenantTest, WhatIsWrongIsSaidAllAtOnceWithItsPlace) {
  EXPECT_EQ(
      diagnostics(R"(tenants:
- name: Research
  wieght: 2
  weight: 0
- parent: research
  limit: {gpus: many}
- name: a
  guaranteed: {memory: 3 apples}
  cells: {gpu_model: gb200}
  borrow: maybe
- name: a
  cells: [{trays: 18}, 7]
)"),
      "t.yaml:2:9: name 'Research' must be 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends\n"
      "t.yaml:3:3: unknown key 'wieght'; did you mean 'weight'?\n"
      "t.yaml:4:11: 'weight' is 0, but must be between 1 and 10000\n"
      "t.yaml:5:3: 'name' is missing; give it one, for example 'name: my-first'\n"
      "t.yaml:6:17: 'gpus' must be a whole number, not 'many'\n"
      "t.yaml:8:24: 'memory': '3 apples' is not an amount of memory; write for example 512MiB, 2GiB or 1GB\n"
      "t.yaml:9:10: 'cells' must be a list such as [{gpu_model: gb200, trays: 18, count: 2}], not a mapping\n"
      "t.yaml:10:11: 'borrow' must be true or false, not 'maybe'\n"
      "t.yaml:11:3: tenant 'a' is given twice; the first is on line 7\n"
      "t.yaml:12:11: 'gpu_model' is missing; write for example 'gpu_model: gb200'\n"
      "t.yaml:12:24: a cell must be a mapping of keys to values, not a value\n");
}

TEST(TenantTest, AGuaranteeAboveTheLimitIsRefused) {
  EXPECT_EQ(diagnostics("tenants:\n- {name: a, guaranteed: {gpus: 9}, limit: {gpus: 8}}\n"),
            "t.yaml:2:3: guaranteed gpus are more than the limit allows\n");
}

TEST(TenantTest, AFileWithoutTenantsIsRefused) {
  EXPECT_EQ(diagnostics("# nothing\n"), "t.yaml:1:1: the file holds no tenants; start with 'tenants:'\n");
  EXPECT_EQ(diagnostics("tenants:\n"),
            "t.yaml:1:1: the file must hold a list: 'tenants:', then '- name: …' for each\n");
  EXPECT_EQ(diagnostics("- name: a\n"),
            "t.yaml:1:1: a document must be a mapping of keys to values, not a list\n");
}

TEST(TenantTest, TheExampleOfTheDocumentationIsRight) {
  const auto text = read_file("examples/tenants.yaml");
  ASSERT_TRUE(text);
  EXPECT_EQ(diagnostics(*text), "");
}

TEST(TenantTest, JsonReadsBackEqual) {
  const Tenant full{.name = "a",
                    .parent = "b",
                    .weight = 7,
                    .guaranteed = {.milli_cpus = 1, .memory_bytes = 2, .gpus = 3},
                    .cells = {{"gb300", 18, 4}},
                    .milli_cpus_max = 10,
                    .memory_bytes_max = 11,
                    .gpus_max = 12,
                    .borrow = false,
                    .priority_max = -4};
  for (const Tenant& tenant : {full, Tenant{.name = "plain"}}) {
    const auto json = Json::parse(to_json(tenant).dump());
    ASSERT_TRUE(json);
    const auto back = tenant_from_json(*json);
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(*back, tenant);
  }
  EXPECT_EQ(tenant_from_json(Json::object({{"name", "x"}})), (Tenant{.name = "x"}));
}

TEST(TenantTest, JsonThatSaysMoreOrOtherwiseIsRefused) {
  const auto field = [](const char* text) {
    const auto json = Json::parse(text);
    const auto back = tenant_from_json(json.value());
    return back ? std::string("accepted") : back.error().field;
  };
  EXPECT_EQ(field(R"({"name": "x", "limits": {}})"), "limits");
  EXPECT_EQ(field(R"({"name": "x", "limit": {"gpu": 1}})"), "limit.gpu");
  EXPECT_EQ(field(R"({"name": "x", "limit": {"gpus": "1"}})"), "limit.gpus");
  EXPECT_EQ(field(R"({"name": "x", "limit": {"gpus": null}})"), "accepted");
  EXPECT_EQ(field(R"({"name": "x", "limit": 7})"), "limit.");
  EXPECT_EQ(field(R"({"name": "x", "guaranteed": {"gpus": -1}})"), "guaranteed.gpus");
  EXPECT_EQ(field(R"({"name": "x", "cells": [{"gpu_model": "gb200", "trays": 0, "count": 1}]})"),
            "cells[0].trays");
  EXPECT_EQ(field(R"({"name": "x", "cells": [{"tray": 1}]})"), "cells[0].tray");
  EXPECT_EQ(field(R"({"name": "x", "weight": 10001})"), "weight");
  EXPECT_EQ(field(R"({})"), "name");
  EXPECT_EQ(field(R"([])"), "");
}

}  // namespace
}  // namespace capstan::workload
