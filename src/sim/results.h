// Results: what a simulated run came to, as numbers and as series over time, for JSON, the summary and the HTML report.
//
//   Results results = run(…);
//   std::string json = to_json(results).dump();
//   std::string html = report_html({results_a, results_b});        // report.h
//
// Times are milliseconds of simulated time since the start; shares are thousandths unless a name says otherwise.
// Integers throughout, so that equal runs give equal bytes. Threads: values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"

namespace capstan::sim {

// One curve; points[i] belongs to times_ms[i]. At most about 2,000 points: a run of a year samples every few hours.
struct Series {
  std::string name;  // "gpus in use", "tenant research", "kind frontier"
  std::string unit;  // "GPUs", "jobs", "%", …
  std::vector<std::int64_t> points;
};
struct Chart {
  std::string title;   // "Occupancy by tenant"
  std::string note;    // what a reader must know to read it
  bool stacked = false;
  std::vector<std::int64_t> times_ms;
  std::vector<Series> series;
};
// Of waits, job completion times, latencies: in milliseconds, exact (nearest rank).
struct Distribution {
  std::string name;
  std::int64_t count = 0;
  std::int64_t mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};
// `values` is sorted in place. O(n log n).
Distribution distribution(std::string name, std::vector<std::int64_t>& values);

struct Row {
  std::string name;
  std::vector<std::string> cells;
};
struct Table {
  std::string title;
  std::vector<std::string> columns;
  std::vector<Row> rows;
};

struct Results {
  std::string scenario;
  std::string variant;  // of a comparison: "fair-share", "fifo"; empty: the only one
  std::uint64_t seed = 0;
  std::int64_t duration_ms = 0;
  std::string hash;      // of every event in order
  std::int64_t inputs = 0, events = 0;
  // Named totals: "gpus", "gpu_hours_available", "gpu_hours_used", "gpu_hours_useful", "gpu_hours_lost", "failures",
  // "jobs_done", "jobs_failed", "tasks_done", "preemptions", "goodput_milli", "fragmentation_milli", "slo_attained_milli", …
  std::map<std::string, std::int64_t> totals;
  std::vector<Distribution> distributions;
  std::vector<Chart> charts;
  std::vector<Table> tables;
  std::vector<std::string> notes;  // assumptions that a reader should know
};

Json to_json(const Results& results);

}  // namespace capstan::sim
