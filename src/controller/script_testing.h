// Scripts for the controller's tests: each line is an input and, after "->", what must follow: events in order, then effects
// (+start …).
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/text.h"
#include "controller/controller.h"
#include "controller/decision.h"
#include "controller/effects.h"
#include "controller/view.h"

namespace capstan::controller {

class Script {
 public:
  // A line that begins with "->" or "&" goes on with the one before.
  void check(std::string_view text) {
    std::vector<std::string> statements;
    for (const std::string_view raw : split(text, '\n')) {
      const std::string_view line = trim(raw);
      if (line.empty()) continue;
      if (line.starts_with("->")) {
        statements.back() += " " + std::string(line);
      } else if (line.starts_with("&")) {
        statements.back() += " " + std::string(trim(line.substr(1)));
      } else {
        statements.emplace_back(line);
      }
    }
    for (const std::string& statement : statements) {
      const std::size_t arrow = statement.find(" -> ");
      ASSERT_NE(arrow, statement.npos) << statement;
      EXPECT_EQ(run(statement.substr(0, arrow)), statement.substr(arrow + 4)) << "at: " << statement;
    }
  }
  const State& state() const { return controller_.state(); }

 private:
  // "a/0": rank 0 of workload a in its current attempt.
  RankId rank(const std::string& text) {
    const auto parts = split(text, '/');
    const Workload* workload = state().find(parts[0]);
    const std::int64_t index = *parse_int(parts[1]);
    std::int64_t attempt = 1;
    if (workload->spec.is_gang()) attempt = workload->job.attempt;
    if (workload->spec.kind == workload::Kind::kService)
      attempt = workload->service.replicas.at(index).attempt;
    if (const auto found = workload->tasks.find(index); found.run != nullptr) attempt = found.run->attempt;
    return {workload->id, attempt, index};
  }
  static std::string one_line(std::string text) {
    for (std::size_t at = 0; (at = text.find('\n', at)) != text.npos;) text.replace(at, 1, " | ");
    return text;
  }
  std::string host_of(const RankId& id) {
    for (const auto& [host, contact] : state().contacts) {
      const auto ranks = state().ranks_on(host);
      if (std::binary_search(ranks.begin(), ranks.end(), id)) return state().name(host);
    }
    return state().name(state().contacts.begin()->first);
  }

  std::string run(const std::string& line) {
    std::vector<std::string> words;
    for (const auto word : split(line, ' ')) words.emplace_back(word);
    const std::string& verb = words[0];
    if (verb == "wait") {
      time_ms_ += *parse_int(words[1]);
      return apply(Tick{});
    }
    if (verb == "apply") {
      const auto specs = workload::parse_specs(line.substr(6), {.source = "t", .base_directory = "/"});
      if (!specs) return specs.error()[0].text();
      return apply(Apply{*specs, false});
    }
    if (verb == "cancel") return apply(Cancel{words[1]});
    if (verb == "scale") return apply(Scale{words[1], *parse_int(words[2]), "test"});
    if (verb == "drain") return apply(Drain{});
    if (verb == "epoch") return apply(BeginEpoch{state().epoch + 1, "b"});
    if (verb == "host")
      return apply(JoinHost{words[1],
                            "i1",
                            "b",
                            "http://127.0.0.1:1",
                            {*parse_int(words[2]) * 1000, std::int64_t{8} << 30, 0},
                            {}});
    if (verb == "suspect") return apply(SetHealth{words[1], fleet::Health::kSuspect});
    if (verb == "lost") return apply(SetHealth{words[1], fleet::Health::kLost});
    if (verb == "back") return apply(SetHealth{words[1], fleet::Health::kHealthy});
    if (verb == "explain") return one_line(*explain(state(), *state().find(words[1])).get_string("text"));
    if (verb == "show") return show(words[1]);
    return report(words);
  }

  std::string report(const std::vector<std::string>& words) {
    const RankId id = rank(words[1]);
    protocol::Report report{1, id, {}};
    if (words[0] == "started") report.body = protocol::RankStarted{100, 0, words.size() > 2 ? words[2] : ""};
    if (words[0] == "ready") report.body = protocol::RankReady{"127.0.0.1", 1};
    if (words[0] == "unready") report.body = protocol::RankUnready{"500"};
    if (words[0] == "unstartable") report.body = protocol::RankStartFailed{words.at(2), words.size() > 3};
    if (words[0] == "ended") {
      protocol::RankExited exit{.exit_code = 0, .signal = {}, .message = words.at(2)};
      for (std::size_t i = 3; i < words.size(); ++i) exit.message += " " + words[i];
      report.body = exit;
    }
    if (words[0] == "lostrank") {
      protocol::RankExited exit{.exit_code = {}, .signal = {}, .message = "gone"};
      exit.lost = true;
      report.body = exit;
    }
    if (words[0] == "exit") {
      protocol::RankExited exit;
      exit.exit_code = *parse_int(words.at(2));
      exit.stopped = words.size() > 3;
      report.body = exit;
    }
    return apply(Reports{host_of(id), {report}, {}});
  }

  std::string show(const std::string& name) {
    const Json json = view(state(), *state().find(name), false);
    return fmt::format("{} {}/{} {}", *json.get_string("state"), *json.get_int("ready"),
                       *json.get_int("wanted"), *json.get_string("reason"));
  }

  std::string apply(decltype(Input::what) what) {
    const Outcome outcome = controller_.apply({time_ms_, std::move(what)});
    if (!outcome.answer) return "refused: " + outcome.answer.error().message;
    std::string out;
    for (const Json& event : outcome.events) {
      out += (out.empty() ? "" : " ") + *event.get_string("type");
      for (const auto key : {"state", "next", "why", "rank", "health"}) {
        if (const Json* value = event.find(key))
          out += ":" + (value->is_string() ? value->as_string() : value->dump());
      }
      if (const Json* ranges = event.find("ranges")) out += ranges->dump();
    }
    for (const HostEffect& effect : outcome.effects) {
      for (std::int64_t i = 0; i < effect.count; ++i) {
        out += fmt::format(" +{}:{}", effect.kind == HostEffect::Kind::kStart ? "start" : "stop",
                           RankId{effect.job, effect.attempt, effect.first + i}.text());
      }
    }
    return out.empty() ? "nothing" : out;
  }

  Controller controller_;
  std::int64_t time_ms_ = 1'000;
};

inline void check_script(std::string_view text) { Script().check(text); }

}  // namespace capstan::controller
