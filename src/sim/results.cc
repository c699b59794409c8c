// How it works: plain copies of the fields, in their order.
#include "sim/results.h"

#include <algorithm>

namespace capstan::sim {
namespace {

template <class T>
Json array_of(const std::vector<T>& values) {
  Json out = Json::array();
  for (const T& value : values) out.push_back(value);
  return out;
}

Json chart_to_json(const Chart& chart) {
  Json series = Json::array();
  for (const Series& one : chart.series)
    series.push_back(Json::object({{"name", one.name}, {"unit", one.unit}, {"points", array_of(one.points)}}));
  return Json::object({{"title", chart.title},
                       {"note", chart.note},
                       {"stacked", chart.stacked},
                       {"times_ms", array_of(chart.times_ms)},
                       {"series", std::move(series)}});
}

Json table_to_json(const Table& table) {
  Json rows = Json::array();
  for (const Row& row : table.rows)
    rows.push_back(Json::object({{"name", row.name}, {"cells", array_of(row.cells)}}));
  return Json::object({{"title", table.title}, {"columns", array_of(table.columns)}, {"rows", std::move(rows)}});
}

}  // namespace

Distribution distribution(std::string name, std::vector<std::int64_t>& values) {
  Distribution out;
  out.name = std::move(name);
  out.count = static_cast<std::int64_t>(values.size());
  if (values.empty()) return out;
  std::sort(values.begin(), values.end());
  __int128 sum = 0;
  for (const std::int64_t value : values) sum += value;
  out.mean = static_cast<std::int64_t>(sum / out.count);
  const auto at = [&](std::int64_t percent) {  // nearest rank
    const std::int64_t rank = (out.count * percent + 99) / 100;
    return values[static_cast<std::size_t>(std::max<std::int64_t>(rank, 1) - 1)];
  };
  out.p50 = at(50);
  out.p90 = at(90);
  out.p95 = at(95);
  out.p99 = at(99);
  out.max = values.back();
  return out;
}

Json to_json(const Results& results) {
  Json totals = Json::object();
  for (const auto& [name, value] : results.totals) totals[name] = value;
  Json distributions = Json::array();
  for (const Distribution& one : results.distributions) {
    distributions.push_back(Json::object({{"name", one.name},
                                          {"count", one.count},
                                          {"mean_ms", one.mean},
                                          {"p50_ms", one.p50},
                                          {"p90_ms", one.p90},
                                          {"p95_ms", one.p95},
                                          {"p99_ms", one.p99},
                                          {"max_ms", one.max}}));
  }
  Json charts = Json::array(), tables = Json::array();
  for (const Chart& chart : results.charts) charts.push_back(chart_to_json(chart));
  for (const Table& table : results.tables) tables.push_back(table_to_json(table));
  return Json::object({{"scenario", results.scenario},
                       {"variant", results.variant},
                       {"seed", static_cast<std::int64_t>(results.seed)},
                       {"duration_ms", results.duration_ms},
                       {"hash", results.hash},
                       {"inputs", results.inputs},
                       {"events", results.events},
                       {"totals", std::move(totals)},
                       {"distributions", std::move(distributions)},
                       {"charts", std::move(charts)},
                       {"tables", std::move(tables)},
                       {"notes", array_of(results.notes)}});
}

}  // namespace capstan::sim
