// How it works: the same churn on fleets of three sizes, to the same occupancy; then one gang of 64 trays is
// placed and ended again and again. The exponent is the slope of log(median time) over log(trays), by least
// squares.
#include <cmath>

#include "apps/bench/churn.h"
#include "apps/bench/latencies.h"
#include "apps/bench/section.h"
#include "base/file.h"

namespace capstan::apps::bench {
namespace {

constexpr std::int64_t kSamples = 1'000;
constexpr std::int64_t kTrays = 64;
constexpr std::int64_t kSegment = 16;
constexpr std::int64_t kChurnBetween = 20;
constexpr std::int64_t kOccupancyPercent =
    75;  // of 64 UltraServers, 16 are then free: the gang needs four whole ones
constexpr std::int64_t kFrontierPercent = 50;
constexpr std::int64_t kAgingPerTray = 20;

struct Point {
  double trays = 0;
  double median_ms = 0;
};

double slope(const std::vector<Point>& points) {
  double x_mean = 0, y_mean = 0;
  for (const Point& point : points) {
    x_mean += std::log(point.trays) / static_cast<double>(points.size());
    y_mean += std::log(point.median_ms) / static_cast<double>(points.size());
  }
  double covariance = 0, variance = 0;
  for (const Point& point : points) {
    covariance += (std::log(point.trays) - x_mean) * (std::log(point.median_ms) - y_mean);
    variance += (std::log(point.trays) - x_mean) * (std::log(point.trays) - x_mean);
  }
  return covariance / variance;
}

Result<Json> measure(const Options& options, Recipe recipe, const std::string& file) {
  CAPSTAN_TRY(fleet::FleetSpec spec,
              load_fleet({.fleets = options.fleets, .directory = options.directory}, file));
  World world;
  world.apply(controller::ApplyFleet{std::move(spec), true});
  recipe.occupancy_percent = kOccupancyPercent;
  recipe.frontier_percent = kFrontierPercent;
  recipe.gangs = {{16, 1}, {32, 1}, {64, 1}};
  Churn churn(world, recipe);
  churn.run(options.scaled(kAgingPerTray * churn.trays(), churn.trays()));
  Latencies times;
  std::int64_t refused = 0;
  const std::int64_t samples = options.scaled(kSamples, 20);
  double occupancy = 0;
  for (std::int64_t i = 0; static_cast<std::int64_t>(times.count()) < samples && i < 3 * samples; ++i) {
    const std::string name = fmt::format("gang-{}", i);
    occupancy += churn.occupancy();
    const double ms = world.apply(controller::Apply{{churn.gang(name, kTrays, kSegment)}, false});
    const std::int64_t id = world.id_of(name);
    if (world.state().find(id)->job.in_attempt) {
      times.add(ms);
      world.settle();
      world.end(id);
      world.settle();
    } else {
      ++refused;
      world.apply(controller::Cancel{name});
      world.settle();
    }
    churn.run(kChurnBetween);
  }
  if (times.count() == 0) return fail(Code::kCorrupt, "no gang of {} trays found room on {}", kTrays, file);
  Json out = times.to_json();
  out["trays"] = churn.trays();
  out["occupancy_mean"] =
      rounded(occupancy / static_cast<double>(times.count() + static_cast<std::size_t>(refused)));
  out["without_room"] = refused;
  out["median_ms"] = times.quantile(0.5);
  out["fingerprint"] = world.fingerprint();
  progress("scaling: {}", out.dump());
  return out;
}

}  // namespace

Result<Json> scaling(const Options& options) {
  const auto file = options.fleets / "aging.yaml";
  CAPSTAN_TRY(const std::string text, read_file(file));
  CAPSTAN_TRY(const Recipe recipe, parse_recipe(text, file.string()));
  std::vector<std::string> fleets = {"trays-1k.yaml", "trays-10k.yaml", "trays-100k.yaml"};
  if (options.scale < 0.1) fleets.pop_back();  // a quick run
  std::vector<Point> points;
  Json conditions = Json::array();
  for (const std::string& fleet : fleets) {
    CAPSTAN_TRY(Json one, in_own_process([&] { return measure(options, recipe, fleet); }));
    points.push_back({one.find("trays")->as_double(), one.find("median_ms")->as_double()});
    conditions.push_back(std::move(one));
  }
  return Json::object({{"scaling_exponent", rounded(slope(points))}, {"conditions", std::move(conditions)}});
}

}  // namespace capstan::apps::bench
