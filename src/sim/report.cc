// How it works: the summary is one table, a column a run. The HTML is a fixed page (report_page.h) with the runs as JSON in it,
// where every '<' is written as an escape, so that no name can end the script.
#include "sim/report.h"

#include <algorithm>

#include "base/text.h"
#include "sim/report_page.h"

namespace capstan::sim {
namespace {

std::string name_of(const Results& run, bool with_seed) {
  std::string name = run.variant.empty() ? run.scenario : run.variant;
  if (with_seed) name += fmt::format(" #{}", run.seed);
  return name;
}

std::string grouped(std::int64_t value) {
  std::string digits = std::to_string(value < 0 ? -value : value);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, ",");
  return value < 0 ? "-" + digits : digits;
}

std::string percent(std::int64_t milli) { return fmt::format("{}.{} %", milli / 10, milli % 10); }

std::string span(std::int64_t ms) {
  if (ms < 10'000) return fmt::format("{}.{:03} s", ms / 1000, ms % 1000);
  if (ms < 600'000) return fmt::format("{} s", ms / 1000);
  if (ms < 36'000'000) return fmt::format("{} min", ms / 60'000);
  if (ms < 864'000'000) return fmt::format("{} h", ms / 3'600'000);
  return fmt::format("{} days", ms / 86'400'000);
}

std::string value_of(const std::string& name, std::int64_t value) {
  return name.ends_with("_milli") ? percent(value) : grouped(value);
}

// Rows of the summary, in order: all that any run has.
std::vector<std::string> totals_of(const std::vector<Results>& runs) {
  constexpr std::string_view kFirst[] = {"gpus",         "occupancy_milli",  "goodput_milli",  "gpu_hours_up",  "gpu_hours_held",
                                         "gpu_hours_useful", "gpu_hours_lost", "workloads_done", "tasks_done", "failures",
                                         "interruptions", "waiting_at_end"};
  std::vector<std::string> names;
  for (const std::string_view name : kFirst) {
    if (std::any_of(runs.begin(), runs.end(), [&](const Results& run) { return run.totals.contains(std::string(name)); }))
      names.emplace_back(name);
  }
  std::map<std::string, int> rest;
  for (const Results& run : runs) {
    for (const auto& [name, value] : run.totals) rest[name] = 1;
  }
  for (const auto& [name, unused] : rest) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

}  // namespace

std::string summary(const std::vector<Results>& runs) {
  if (runs.empty()) return "";
  const bool seeds = std::any_of(runs.begin(), runs.end(), [&](const Results& run) { return run.seed != runs.front().seed; });
  std::vector<std::vector<std::string>> table(1, {runs.front().scenario});
  for (const Results& run : runs) table[0].push_back(name_of(run, seeds));
  const auto row = [&](std::string name, auto cell) {
    table.push_back({std::move(name)});
    for (const Results& run : runs) table.back().push_back(cell(run));
  };
  row("simulated", [](const Results& run) { return span(run.duration_ms); });
  for (const std::string& name : totals_of(runs)) {
    std::string shown = name.ends_with("_milli") ? name.substr(0, name.size() - 6) : name;
    std::replace(shown.begin(), shown.end(), '_', ' ');
    row(shown, [&](const Results& run) {
      const auto at = run.totals.find(name);
      return at == run.totals.end() ? "-" : value_of(name, at->second);
    });
  }
  std::vector<std::string> distributions;
  for (const Results& run : runs) {
    for (const Distribution& one : run.distributions) {
      if (one.count > 0 && std::find(distributions.begin(), distributions.end(), one.name) == distributions.end())
        distributions.push_back(one.name);
    }
  }
  for (const std::string& name : distributions) {
    row(name + ", mean / p99", [&](const Results& run) -> std::string {
      for (const Distribution& one : run.distributions) {
        if (one.name == name && one.count > 0) return span(one.mean) + " / " + span(one.p99);
      }
      return "-";
    });
  }
  row("inputs to the controller", [](const Results& run) { return grouped(run.inputs); });
  row("hash", [](const Results& run) { return run.hash; });
  std::vector<std::size_t> widths(table[0].size(), 0);
  for (const auto& cells : table) {
    for (std::size_t i = 0; i < cells.size(); ++i) widths[i] = std::max(widths[i], cells[i].size());
  }
  std::string out;
  for (const auto& cells : table) {
    std::string line = fmt::format("{:<{}}", cells[0], widths[0]);
    for (std::size_t i = 1; i < cells.size(); ++i) line += fmt::format("  {:>{}}", cells[i], widths[i]);
    out += line + "\n";
  }
  for (const std::string& note : runs.front().notes) out += "note: " + note + "\n";
  return out;
}

std::string report_html(const std::vector<Results>& runs) {
  Json all = Json::array();
  for (const Results& run : runs) all.push_back(to_json(run));
  std::string json;
  for (const char c : all.dump()) {
    if (c == '<') {
      json += "\\u003c";
    } else {
      json += c;
    }
  }
  std::string title;
  for (const char c : runs.empty() ? std::string("nothing") : runs.front().scenario) {
    if (c == '<' || c == '>' || c == '&' || c == '"') continue;
    title += c;
  }
  std::string page(kReportPage);
  const auto put = [&](std::string_view mark, const std::string& text) {
    const std::size_t at = page.find(mark);
    if (at != std::string::npos) page.replace(at, mark.size(), text);
  };
  put("@TITLE@", title);
  put("@RUNS@", json);
  return page;
}

}  // namespace capstan::sim
