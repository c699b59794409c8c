// How it works: the columns are found by their names once; then each row is read by position. The Standard Workload Format has
// fixed columns and no names, its rows become the same jobs.
#include "sim/traces.h"

#include <algorithm>

#include "base/text.h"
#include "sim/csv.h"

namespace capstan::sim {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

using Column = std::optional<std::size_t>;
struct Columns {
  Column submit, duration, end;
  Column gpus, gpu_milli, processors, cpus, cpu_milli, memory_mib;
  Column owner, model, limit, gpu_model;
};

// Philly and Helios: gpus, vc. Muri: gpus, model. SURF: arrival_s, cpus, mem_mib_as_published. SWF as CSV: run_s, procs.
Columns columns_of(const Csv& csv) {
  Columns out;
  out.submit = csv.find({"submit_time_s", "arrival_s", "creation_time"});
  out.duration = csv.find({"duration_s", "run_s"});
  out.end = csv.find({"deletion_time"});
  out.gpus = csv.find({"gpus", "num_gpu"});
  out.gpu_milli = csv.find({"gpu_milli"});
  out.processors = csv.find({"procs"});
  out.cpus = csv.find({"cpus"});
  out.cpu_milli = csv.find({"cpu_milli"});
  out.memory_mib = csv.find({"memory_mib"});
  if (!out.memory_mib) out.memory_mib = csv.find_prefix("mem_mib");
  out.owner = csv.find({"vc", "user"});
  out.model = csv.find({"model"});
  out.limit = csv.find({"req_time_s"});
  out.gpu_model = csv.find({"gpu_spec"});
  return out;
}

Result<void> check_columns(const Csv& csv, const Columns& columns) {
  const std::string there = fmt::format("{}", fmt::join(csv.columns(), ", "));
  if (!columns.submit) {
    return csv.wrong(
        "no column says when a job is submitted; call one 'submit_time_s', 'arrival_s' or 'creation_time' (there "
        "are: {})",
        there);
  }
  if (!columns.duration && !columns.end) {
    return csv.wrong(
        "no column says how long a job takes; call one 'duration_s' or 'run_s', or give a 'deletion_time' (there "
        "are: {})",
        there);
  }
  if (!columns.gpus && !columns.processors && !columns.cpus && !columns.cpu_milli) {
    return csv.wrong(
        "no column says how large a job is; call one 'gpus', 'num_gpu', 'procs', 'cpus' or 'cpu_milli' (there "
        "are: {})",
        there);
  }
  return {};
}

// A number of processors: GPUs of a gang, or ranks of one CPU each.
void set_processors(std::int64_t processors, bool are_gpus, JobSize& size) {
  if (are_gpus) {
    size.gpus = processors;
  } else {
    size.ranks = std::max<std::int64_t>(processors, 1);
    size.milli_cpus = size.ranks * 1000;
  }
}

Result<void> read_size(const Csv& csv, const Columns& columns, const TraceReading& reading, JobSize& size) {
  if (columns.processors) {
    CAPSTAN_TRY(const std::int64_t processors, csv.integer(*columns.processors));
    set_processors(processors, reading.processors_are_gpus, size);
  }
  if (columns.cpus) {
    CAPSTAN_TRY(const std::int64_t cpus, csv.integer(*columns.cpus));
    if (reading.processors_are_gpus) {
      size.gpus = cpus;
    } else {
      size.milli_cpus = cpus * 1000;
    }
  }
  if (columns.cpu_milli) {
    CAPSTAN_TRY(size.milli_cpus, csv.integer(*columns.cpu_milli));
  }
  if (columns.memory_mib && !reading.processors_are_gpus) {
    CAPSTAN_TRY(const std::int64_t mib, csv.integer(*columns.memory_mib));
    if (mib > INT64_MAX / kMiB) return csv.wrong("{} MiB are more than any host has", mib);
    size.memory_bytes = mib * kMiB;
  }
  if (columns.gpus) {
    CAPSTAN_TRY(size.gpus, csv.integer(*columns.gpus));
  }
  if (columns.gpu_milli) {  // of each GPU; a share only of one
    CAPSTAN_TRY(const std::int64_t milli, csv.integer(*columns.gpu_milli));
    if (size.gpus == 1 && milli > 0 && milli < 1000) {
      size.gpus = 0;
      size.gpu_milli = milli;
    }
  }
  if (size.gpus > workload::kRanksMax || size.ranks > workload::kRanksMax)
    return csv.wrong("the job has more than {} GPUs or processors, which is the limit", workload::kRanksMax);
  return {};
}

// OpenB names every kind that will do, "A10|T4"; placement takes one kind or any, so several mean any.
std::string gpu_model_of(std::string_view cell) { return cell.find('|') == cell.npos ? to_lower(cell) : std::string(); }

// nullopt: the row is left out.
Result<std::optional<TraceJob>> read_row(const Csv& csv, const Columns& columns, const TraceReading& reading) {
  TraceJob job;
  if (csv.cell(*columns.submit).empty()) return std::nullopt;
  CAPSTAN_TRY(job.submit_ms, csv.seconds(*columns.submit, 1000));
  if (columns.duration) {
    if (csv.cell(*columns.duration).empty()) return std::nullopt;
    CAPSTAN_TRY(job.size.work_ms, csv.seconds(*columns.duration, 1000));
  } else {
    if (csv.cell(*columns.end).empty()) return std::nullopt;
    CAPSTAN_TRY(const std::int64_t end_ms, csv.seconds(*columns.end, 1000));
    job.size.work_ms = end_ms - job.submit_ms;
  }
  if (job.submit_ms < 0 || job.size.work_ms < 0) return std::nullopt;
  CAPSTAN_CHECK(read_size(csv, columns, reading, job.size));
  if (columns.limit) {
    CAPSTAN_TRY(const std::int64_t limit_ms, csv.seconds(*columns.limit, 1000));
    job.size.estimate_ms = std::max<std::int64_t>(limit_ms, 0);  // -1: not known
  }
  if (columns.owner && csv.cell(*columns.owner) != "-1") job.owner = csv.cell(*columns.owner);
  if (columns.model) job.model = csv.cell(*columns.model);
  if (columns.gpu_model) job.gpu_model = gpu_model_of(csv.cell(*columns.gpu_model));
  return job;
}

Result<void> read_csv(std::string_view text, std::string_view source, const TraceReading& reading, Trace& out) {
  CAPSTAN_TRY(Csv csv, Csv::open(text, source));
  const Columns columns = columns_of(csv);
  CAPSTAN_CHECK(check_columns(csv, columns));
  for (std::int64_t row = 0; reading.rows_max == 0 || row < reading.rows_max; ++row) {
    CAPSTAN_TRY(const bool any, csv.next());
    if (!any) break;
    CAPSTAN_TRY(auto job, read_row(csv, columns, reading));
    if (!job) {
      ++out.rows_left_out;
      continue;
    }
    job->row = row;
    out.jobs.push_back(std::move(*job));
  }
  return {};
}

// The 18 columns of the Standard Workload Format (Feitelson's archive, version 2.2); -1 is "not known".
enum SwfColumn {
  kNumber,
  kSubmit,
  kWait,
  kRun,
  kUsed,
  kCpuTime,
  kMemoryUsed,
  kAsked,
  kAskedTime,
  kAskedMemory,
  kStatus,
  kUser
};
constexpr std::size_t kSwfColumns = 18;

Result<std::optional<TraceJob>> read_swf_row(std::span<const std::int64_t> cells, const TraceReading& reading) {
  const std::int64_t processors = cells[kAsked] > 0 ? cells[kAsked] : cells[kUsed];
  if (cells[kSubmit] < 0 || cells[kRun] < 0 || processors <= 0) return std::nullopt;
  TraceJob job;
  job.submit_ms = cells[kSubmit] * 1000;
  job.size.work_ms = cells[kRun] * 1000;
  set_processors(std::min(processors, workload::kRanksMax), reading.processors_are_gpus, job.size);
  job.size.estimate_ms = std::max<std::int64_t>(cells[kAskedTime], 0) * 1000;
  constexpr std::int64_t kKiBMax = INT64_MAX / 1024 / workload::kRanksMax;
  if (cells[kAskedMemory] > 0 && !reading.processors_are_gpus)  // KiB of each processor
    job.size.memory_bytes = std::min(cells[kAskedMemory], kKiBMax) * 1024 * job.size.ranks;
  if (cells[kUser] >= 0) job.owner = fmt::format("user{}", cells[kUser]);
  return job;
}

Result<void> read_swf(std::string_view text, std::string_view source, const TraceReading& reading, Trace& out) {
  int number = 0;
  std::int64_t row = 0;
  for (const std::string_view whole : split(text, '\n')) {
    ++number;
    const std::string_view line = trim(whole);
    if (line.empty() || line.front() == ';') continue;
    if (reading.rows_max > 0 && row >= reading.rows_max) break;
    std::array<std::int64_t, kSwfColumns> cells{};
    std::size_t count = 0;
    for (std::string_view rest = line; !rest.empty(); ++count) {
      const std::size_t end = std::min(rest.find_first_of(" \t"), rest.size());
      const auto value = parse_decimal(rest.substr(0, end), 1);
      if (!value || *value > INT64_MAX / 2000 || *value < INT64_MIN / 2000) {
        return fail(Code::kInvalid, "{}:{}: column {} must be a number, not '{}'", source, number, count + 1,
                    rest.substr(0, end));
      }
      if (count < kSwfColumns) cells[count] = *value;
      rest = trim(rest.substr(end));
    }
    if (count != kSwfColumns)
      return fail(Code::kInvalid, "{}:{}: the row has {} columns; the Standard Workload Format has {}", source, number, count,
                  kSwfColumns);
    CAPSTAN_TRY(auto job, read_swf_row(cells, reading));
    if (job) {
      job->row = row;
      out.jobs.push_back(std::move(*job));
    } else {
      ++out.rows_left_out;
    }
    ++row;
  }
  return {};
}

std::string_view without_compression(std::string_view source) {
  if (source.ends_with(".zst")) source.remove_suffix(4);
  return source;
}

// "dir/philly.csv.zst" is called "philly".
std::string name_of(std::string_view source) {
  source.remove_prefix(std::min(source.rfind('/') + 1, source.size()));
  return std::string(source.substr(0, source.find('.')));
}

}  // namespace

Result<Trace> parse_trace(std::string_view text, std::string_view source, const TraceReading& reading) {
  Trace out;
  out.name = name_of(source);
  if (without_compression(source).ends_with(".swf")) {
    CAPSTAN_CHECK(read_swf(text, source, reading, out));
  } else {
    CAPSTAN_CHECK(read_csv(text, source, reading, out));
  }
  std::ranges::stable_sort(out.jobs, {}, &TraceJob::submit_ms);
  const std::int64_t first_ms = out.jobs.empty() ? 0 : out.jobs.front().submit_ms;
  for (TraceJob& job : out.jobs) job.submit_ms -= first_ms + reading.from_ms;
  std::erase_if(out.jobs, [&](const TraceJob& job) {
    return job.submit_ms < 0 || (reading.until_ms > 0 && job.submit_ms >= reading.until_ms - reading.from_ms);
  });
  if (out.jobs.empty())
    return fail(Code::kInvalid, "{}: no job is left: {} rows have no time or never ran, the others lie outside the window",
                source, out.rows_left_out);
  return out;
}

Result<Trace> read_trace(const std::filesystem::path& path, const TraceReading& reading) {
  CAPSTAN_TRY(const std::string text, read_text_file(path));
  return parse_trace(text, path.string(), reading);
}

}  // namespace capstan::sim
