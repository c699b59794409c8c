// Latencies: times of one kind of thing, and what people ask about them.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <vector>

#include "base/json.h"

namespace capstan::apps::bench {

class Stopwatch {
 public:
  double ms() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began_).count();
  }
  double s() const { return ms() / 1'000; }

 private:
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

// Four significant digits: the rest is noise.
inline double rounded(double value) {
  if (value == 0) return 0;
  const double scale = std::pow(10, 3 - std::floor(std::log10(std::abs(value))));
  return std::round(value * scale) / scale;
}

class Latencies {
 public:
  void add(double ms) { all_.push_back(ms); }
  std::size_t count() const { return all_.size(); }
  // The smallest time that at least the fraction `share` of all do not exceed; 0 of none.
  double quantile(double share) const {
    if (all_.empty()) return 0;
    std::vector<double> sorted = all_;
    std::sort(sorted.begin(), sorted.end());
    const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(sorted.size())));
    return sorted[rank == 0 ? 0 : rank - 1];
  }
  double sum() const {
    double total = 0;
    for (const double one : all_) total += one;
    return total;
  }
  Json to_json() const {
    return Json::object({{"count", all_.size()},
                         {"p50_ms", rounded(quantile(0.5))},
                         {"p90_ms", rounded(quantile(0.9))},
                         {"p99_ms", rounded(quantile(0.99))},
                         {"max_ms", rounded(quantile(1))}});
  }

 private:
  std::vector<double> all_;
};

}  // namespace capstan::apps::bench
