// Goal: what people complain about in other schedulers, one text file each in tests/scenarios: the right decision, and its
// explanation. Method: each file is a script against the real controller; the runner plays the workers: ranks start at once
// and stop when the script says `settle`.
//
//   fleet | tenants | apply        then YAML, up to a line with a single dot
//   wait 10m                       time passes
//   settle                         ranks that were asked to stop have stopped
//   end NAME                       all its ranks end well
//   reserve NAME TENANT HOSTS FROM UNTIL | maintain HOST FROM UNTIL     minutes from now
//   back HOST                      a lost host is there again
//   failgpu HOST N                 its GPU N is broken
//   lost HOST | cordon HOST | uncordon HOST | drain HOST | return HOST
//   expect NAME STATE              running, pending, stopping, …
//   domains NAME N                 its ranks are in so many NVLink domains
//   segments NAME S                every S consecutive ranks lie in one domain
//   whole N                        so many UltraServers are wholly idle
//   running N | stopping N         so many workloads are
//   ranks NAME N                   its attempt has so many ranks
//   on NAME HOST | off NAME HOST   one of its ranks is there, or none
//   order ORDER                    of the queue
//   explain NAME ~ TEXT            its explanation has this in it
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "base/text.h"
#include "controller/controller.h"
#include "controller/effects.h"
#include "controller/view.h"
#include "workload/fleet_yaml.h"
#include "workload/tenant_yaml.h"

namespace capstan::controller {
namespace {

class Scenario {
 public:
  void run(const std::string& text) {
    const auto lines = split(text, '\n');
    for (std::size_t i = 0; i < lines.size(); ++i) {
      std::string_view line = trim(lines[i]);
      if (line.empty() || line.front() == '#') continue;
      SCOPED_TRACE(fmt::format("line {}: {}", i + 1, line));
      if (line == "fleet" || line == "tenants" || line == "apply") {
        std::string yaml;
        for (++i; i < lines.size() && trim(lines[i]) != "."; ++i) yaml += std::string(lines[i]) + "\n";
        block(line, yaml);
      } else {
        step(std::string(line));
      }
    }
    check_snapshot();
  }

 private:
  void block(std::string_view kind, const std::string& yaml) {
    if (kind == "fleet") {
      const auto spec = workload::parse_fleet(yaml, "fleet");
      ASSERT_TRUE(spec) << spec.error()[0].text();
      take(ApplyFleet{*spec, true});
    } else if (kind == "tenants") {
      const auto tenants = workload::parse_tenants(yaml, "tenants");
      ASSERT_TRUE(tenants) << tenants.error()[0].text();
      take(SetTenants{*tenants});
    } else {
      const auto specs = workload::parse_specs(yaml, {.source = "apply", .base_directory = "/"});
      ASSERT_TRUE(specs) << specs.error()[0].text();
      take(Apply{*specs, false});
    }
  }

  void step(const std::string& line) {
    const auto words = split(line, ' ');
    const std::string verb(words[0]), name(words.size() > 1 ? words[1] : ""), third(words.size() > 2 ? words[2] : "");
    if (verb == "wait") {
      const bool minutes = name.ends_with('m');
      time_ms_ += *parse_int(name.substr(0, name.size() - 1)) * (minutes ? 60'000 : 1'000);
      take(Tick{});
    } else if (verb == "order") {
      take(SetPolicy{name, -1});
    } else if (verb == "settle") {
      settle();
    } else if (verb == "end") {
      end(name);
    } else if (verb == "lost") {
      take(SetHealth{name, fleet::Health::kLost});
    } else if (verb == "back") {
      take(SetHealth{name, fleet::Health::kHealthy});
    } else if (verb == "failgpu") {
      take(SetCondition{{name}, HostVerb::kFail, {*parse_int(third)}, ""});
    } else if (verb == "reserve") {
      Reserve block;
      block.name = name;
      block.tenant = third;
      block.hosts = *parse_int(words[3]);
      block.from_ms = minutes_on(words[4]);
      block.until_ms = minutes_on(words[5]);
      take(std::move(block));
    } else if (verb == "maintain") {
      take(Maintain{{name}, minutes_on(third), minutes_on(words[3])});
    } else if (verb == "ranks") {
      EXPECT_EQ(static_cast<std::int64_t>(state().find(name)->job.ranks.size()), parse_int(third));
    } else if (const auto host_verb = parse_verb(verb)) {
      take(SetCondition{{name}, *host_verb, {}, ""});
    } else if (verb == "expect") {
      const Workload* workload = state().find(name);
      ASSERT_NE(workload, nullptr);
      EXPECT_EQ(state_name(workload->state), third) << explained(name);
    } else if (verb == "domains") {
      EXPECT_EQ(static_cast<std::int64_t>(domains_of(name).size()), parse_int(third));
    } else if (verb == "segments") {
      segments(name, *parse_int(third));
    } else if (verb == "whole") {
      EXPECT_EQ(whole(), parse_int(name));
    } else if (verb == "running" || verb == "stopping") {
      const auto count = std::count_if(state().workloads.begin(), state().workloads.end(), [&](const auto& entry) {
        return state_name(entry.second.state) == verb;
      });
      EXPECT_EQ(count, parse_int(name));
    } else if (verb == "on" || verb == "off") {
      EXPECT_EQ(is_on(name, third), verb == "on");
    } else if (verb == "explain") {
      EXPECT_NE(explained(name).find(line.substr(line.find('~') + 2)), std::string::npos) << explained(name);
    } else {
      FAIL() << "an unknown step";
    }
  }

  std::int64_t minutes_on(std::string_view minutes) const { return time_ms_ + *parse_int(minutes) * 60'000; }

  // A new process that reads the snapshot knows the same.
  void check_snapshot() {
    std::string text;
    controller_.write_snapshot([&](std::string_view piece) { text += piece; });
    const auto read = Controller::from_snapshot_text(text);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(read->state_hash(), controller_.state_hash());
  }

  void take(decltype(Input::what) what) {
    const Outcome outcome = controller_.apply({time_ms_, std::move(what)});
    ASSERT_TRUE(outcome.answer) << outcome.answer.error().message;
    for (const HostEffect& effect : outcome.effects) {
      for (std::int64_t i = 0; i < effect.count; ++i) {
        const RankId id{effect.job, effect.attempt, effect.first + i};
        if (effect.kind == HostEffect::Kind::kStop) {
          stops_.emplace_back(effect.host, id);
        } else {
          starts_.emplace_back(effect.host, id);
        }
      }
    }
    for (const auto& [host, id] : std::exchange(starts_, {})) report(host, id, protocol::RankStarted{1, 0});
  }

  void report(HostId host, const RankId& id, decltype(protocol::Report::body) body) {
    take(Reports{state().name(host), {{1, id, std::move(body)}}, {}});
  }

  void settle() {
    while (!stops_.empty()) {
      for (const auto& [host, id] : std::exchange(stops_, {})) {
        protocol::RankExited exit;
        exit.exit_code = 0;
        exit.stopped = true;
        report(host, id, exit);
      }
    }
  }

  void end(const std::string& name) {
    const Workload& workload = *state().find(name);
    const std::vector<Rank> ranks = workload.job.ranks;
    const RankId first{workload.id, workload.job.attempt, 0};
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      protocol::RankExited exit;
      exit.exit_code = 0;
      report(ranks[i].host, {first.job, first.attempt, static_cast<std::int64_t>(i)}, exit);
    }
  }

  std::set<fleet::DomainId> domains_of(const std::string& name) {
    std::set<fleet::DomainId> out;
    for (const auto& slice : state().find(name)->job.slices)
      out.insert(state().inventory.topology().domain_of(slice.host));
    return out;
  }

  void segments(const std::string& name, std::int64_t size) {
    const auto& ranks = state().find(name)->job.ranks;
    const auto& topology = state().inventory.topology();
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      const auto& first = ranks[i / static_cast<std::size_t>(size) * static_cast<std::size_t>(size)];
      ASSERT_EQ(topology.domain_of(ranks[i].host), topology.domain_of(first.host)) << "rank " << i;
    }
  }

  std::int64_t whole() {
    const auto& topology = state().inventory.topology();
    std::int64_t count = 0;
    for (std::uint32_t i = 0; i < topology.domains(); ++i) {
      const fleet::Domain& domain = topology.domain(fleet::DomainId{i});
      bool idle = domain.hosts > 1;
      for (std::uint32_t tray = 0; tray < domain.hosts; ++tray)
        idle = idle && state().inventory.idle(HostId{fleet::index(domain.first) + tray});
      count += idle;
    }
    return count;
  }

  bool is_on(const std::string& name, const std::string& host) {
    const auto& ranks = state().find(name)->job.ranks;
    return std::any_of(ranks.begin(), ranks.end(),
                       [&](const Rank& rank) { return rank.live() && state().name(rank.host) == host; });
  }

  std::string explained(const std::string& name) {
    return explain(state(), *state().find(name)).get_string("text").value_or("");
  }

  const State& state() const { return controller_.state(); }

  Controller controller_;
  std::int64_t time_ms_ = 1'700'000'000'000;
  std::vector<std::pair<HostId, RankId>> starts_, stops_;
};


std::vector<std::string> files() {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator("tests/scenarios")) {
    if (entry.path().extension() == ".scn") out.push_back(entry.path().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

TEST(Scenario, EveryFileGoesAsItSays) {
  const auto all = files();
  ASSERT_GE(all.size(), 10u);
  for (const std::string& file : all) {
    SCOPED_TRACE(file);
    const auto text = read_file(file);
    ASSERT_TRUE(text);
    Scenario().run(*text);
  }
}

}  // namespace
}  // namespace capstan::controller
