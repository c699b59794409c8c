// Traces: files of jobs or requests that were recorded in real clusters, as arrivals.
//
//   CAPSTAN_TRY(Trace trace, read_trace("philly.csv.zst", {}));
//   auto source = replay(std::make_shared<const Trace>(std::move(trace)), options);
//   CAPSTAN_TRY(std::vector<Request> requests, read_requests("azure_llm.csv"));
//
// A CSV file says by the names of its columns what it holds, in any order; others are ignored:
//
//   submit    submit_time_s, arrival_s, creation_time        seconds, up to three decimals
//   duration  duration_s, run_s; or deletion_time (minus the submission)
//   size      gpus, num_gpu, procs; gpu_milli (of one GPU), cpus, cpu_milli, mem_mib…, memory_mib
//   who       vc, user            what  model            limit  req_time_s            kind of GPU  gpu_spec
//
// So do the exports of Philly, Muri, SURF Lisa and OpenB. Names that end in .swf hold the Standard Workload Format (18
// columns, ';' before remarks), in .zst anything of that, compressed. Rows are sorted by submission; a row without a time, or
// one that never ran (duration below 0), is left out and counted.
// Failure: kInvalid with file:line, what is wrong and what would be right; read_file's codes.  Cost: 0.3 us a row; all in memory.
// Threads: pure functions.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "sim/arrivals.h"
#include "sim/work_template.h"

namespace capstan::sim {

inline constexpr std::uint64_t kTraceBytesMax = 1u << 30;  // of text, after decompression

struct TraceJob {
  std::int64_t submit_ms = 0;  // since the first of the trace
  std::int64_t row = 0;       // of the file, from 0: the job's name is made of it
  JobSize size;
  std::string owner;      // "vc", or else "user"; empty: none
  std::string model;      // "vgg16"
  std::string gpu_model;  // "t4": the only kind that will do; empty: any
};

struct Trace {
  std::string name;  // of the file, without directory and extensions
  std::vector<TraceJob> jobs;
  std::int64_t rows_left_out = 0;
};

struct TraceReading {
  std::int64_t rows_max = 0;            // of the file; 0: all
  std::int64_t from_ms = 0;             // jobs that are submitted from here on …
  std::int64_t until_ms = 0;            // … to before here; 0: to the end. Time starts at from_ms then
  bool processors_are_gpus = false;     // "procs" and "cpus"
};
Result<Trace> read_trace(const std::filesystem::path& path, const TraceReading& reading);
// The same of a text; `source` is its name in messages, and its ending says the format.
Result<Trace> parse_trace(std::string_view text, std::string_view source, const TraceReading& reading);

struct TraceReplay {
  WorkTemplate pattern;
  std::int64_t arrivals_percent = 100;   // of the times between submissions: 50 is twice the load
  std::int64_t durations_percent = 100;
  std::int64_t starts_at_ms = 0;
  bool owners_are_tenants = false;       // else all are the pattern's tenant's
  std::map<std::string, std::string> tenants;  // by owner; an owner that is not here has `tenant_prefix` + its name
  std::string tenant_prefix;
  bool models_from_trace = false;        // Behaviour::model is the trace's
  bool own_estimates = true;             // the users' limits, where the trace has them
};
// The tenant of a job of this owner.
std::string tenant_of(const TraceReplay& replay, const std::string& owner);
// The trace is shared, read-only, by the runs of a comparison.
std::unique_ptr<ArrivalSource> replay(std::shared_ptr<const Trace> trace, TraceReplay options);

// A request to a served model: Mooncake (with the ids of its 512-token prefix blocks), Azure.
struct Request {
  std::int64_t time_us = 0;  // since the first
  std::int64_t input_tokens = 0;
  std::int64_t output_tokens = 0;
  std::vector<std::uint32_t> blocks;  // equal ids: equal prefixes
};
// Columns arrival_s (absent: all at 0), input_tokens, output_tokens, and hash_ids… if there are any.
Result<std::vector<Request>> read_requests(const std::filesystem::path& path, std::int64_t rows_max = 0);
Result<std::vector<Request>> parse_requests(std::string_view text, std::string_view source, std::int64_t rows_max = 0);

// A text file; one whose name ends in .zst is decompressed. kExhausted past kTraceBytesMax.
Result<std::string> read_text_file(const std::filesystem::path& path);

}  // namespace capstan::sim
