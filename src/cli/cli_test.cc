// Goal: the command tree hangs together, and amounts read as people say them.
#include "cli/cli.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

#include "base/text.h"
#include "cli/completion.h"
#include "cli/format.h"
#include "cli/scheduling_commands.h"

namespace capstan::cli {
namespace {

TEST(CommandsTest, CompletionKnowsNestedCommandsAndTheirOptions) {
  CLI::App app;
  Globals globals;
  int exit_code = 0;
  add_client_commands(app, globals, exit_code);
  const std::string bash = completion_script(app, "bash").value();
  EXPECT_NE(bash.find("    fleet) words=\"apply generate show "), std::string::npos) << bash;
  EXPECT_NE(bash.find("hosts) words=\"cordon uncordon drain fail repair return "), std::string::npos) << bash;
  for (const char* option : {"--present", "--level", "--per-ultraserver", "--why", "--order"})
    EXPECT_NE(bash.find(option), std::string::npos) << option;
  EXPECT_NE(completion_script(app, "fish")->find("'__fish_seen_subcommand_from tenants' -a apply"),
            std::string::npos);
  EXPECT_FALSE(completion_script(app, "cmd"));
}

// Every command says how it is used: people learn from the example.
TEST(CommandsTest, EveryCommandHasAnExample) {
  CLI::App app;
  Globals globals;
  int exit_code = 0;
  add_client_commands(app, globals, exit_code);
  int commands = 0;
  const auto check = [&](const CLI::App* command) {
    ++commands;
    EXPECT_NE(command->get_footer().find("Example:\n  "), std::string::npos) << command->get_name();
  };
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    const auto nested = command->get_subcommands([](const CLI::App*) { return true; });
    if (nested.empty()) check(command);
    for (const CLI::App* one : nested) check(one);
  }
  EXPECT_GT(commands, 25);
}

// Goal: all that was asked for is in the file, whatever remains of clusters and blocks.
// Method: the counts of the lines, added up.
TEST(FleetGenerateTest, TheCountsAddUp) {
  for (const auto& [ultraservers, hosts, clusters] :
       {std::tuple{7500, 260'420, 7}, {3, 0, 1}, {0, 5, 3}, {33, 1001, 2}, {1, 1, 4}}) {
    const std::string yaml = fleet_yaml({.clusters = clusters, .ultraservers = ultraservers, .hosts = hosts});
    std::int64_t found_ultraservers = 0, found_hosts = 0, found_clusters = 0, in_clusters = 0;
    for (const std::string_view line : split(yaml, '\n')) {
      const auto number_after = [&](std::string_view word, std::size_t from) -> std::int64_t {
        const auto at = line.find(word, from);
        return at == line.npos ? 1 : std::stoll(std::string(line.substr(at + word.size())));
      };
      if (line.starts_with("        count: ")) found_clusters += in_clusters = number_after("count: ", 0);
      const auto list = line.find('[');
      if (list == line.npos) continue;
      const std::int64_t blocks = line.find("count: ") < list ? number_after("count: ", 0) : 1;
      const std::int64_t things = in_clusters * blocks * number_after("count: ", list);
      (line.contains("ultraservers: ") ? found_ultraservers : found_hosts) += things;
    }
    EXPECT_EQ(found_ultraservers, ultraservers) << yaml;
    EXPECT_EQ(found_hosts, hosts) << yaml;
    EXPECT_LE(found_clusters, clusters);
  }
}

TEST(FormatTest, AmountsAreShort) {
  EXPECT_EQ(format_cpus(500), "0.5");
  EXPECT_EQ(format_cpus(192'000), "192");
  EXPECT_EQ(format_memory(512), "512 B");
  EXPECT_EQ(format_memory(std::int64_t{3} << 39), "1.5 TiB");
  EXPECT_EQ(format_memory(std::int64_t{200} << 30), "200 GiB");
  EXPECT_EQ(format_amounts(*Json::parse(R"({"gpus":8,"milli_cpus":512000,"memory_bytes":0})"), "-"),
            "8 gpus, 512 cpus");
  EXPECT_EQ(format_amounts(*Json::parse(R"({"gpus":0,"gpu_milli":250,"milli_cpus":1000})"), "-"),
            "0.25 gpus, 1 cpu");
  EXPECT_EQ(format_amounts(*Json::parse(R"({"gpus":null})"), "-"), "-");
  EXPECT_EQ(format_percent(*Json::parse(R"({"share":0.1254})"), "share"), "12.5 %");
  EXPECT_EQ(format_time(1'795'510'830'000), "2026-11-24T09:00Z");
}

}  // namespace
}  // namespace capstan::cli
