// How it works: a file that begins with zstd's magic number is decompressed whole, then lines are cut at
// commas (the trace quotes nothing) and the columns that count are taken by the names in the first line.
#include "apps/openb/trace.h"

#include <zstd.h>

#include <algorithm>
#include <memory>
#include <span>

#include "base/file.h"
#include "base/text.h"

namespace capstan::apps {
namespace {

using scheduler::Capacity;
using scheduler::HostRequest;

constexpr std::int64_t kMebibyte = std::int64_t{1} << 20;
constexpr std::string_view kZstdMagic("\x28\xB5\x2F\xFD", 4);

Result<std::string> decompress(std::string_view name, std::string_view bytes) {
  const std::unique_ptr<ZSTD_DStream, decltype(&ZSTD_freeDStream)> stream(ZSTD_createDStream(),
                                                                          ZSTD_freeDStream);
  if (!stream) return fail(Code::kExhausted, "{}: no memory to decompress it", name);
  std::string out, piece(ZSTD_DStreamOutSize(), '\0');
  ZSTD_inBuffer input{bytes.data(), bytes.size(), 0};
  std::size_t rest = 0;
  do {
    ZSTD_outBuffer output{piece.data(), piece.size(), 0};
    rest = ZSTD_decompressStream(stream.get(), &output, &input);
    if (ZSTD_isError(rest))
      return fail(Code::kCorrupt, "{}: bad zstd data: {}", name, ZSTD_getErrorName(rest));
    out.append(piece, 0, output.pos);
    if (out.size() > kOpenbBytesMax) {
      return fail(Code::kExhausted, "{}: more than {} bytes when decompressed", name, kOpenbBytesMax);
    }
    if (output.pos == 0 && input.pos == input.size) break;
  } while (rest != 0 || input.pos < input.size);
  if (rest != 0) return fail(Code::kCorrupt, "{}: the zstd data ends too early", name);
  return out;
}

Result<std::string> read_text(const std::filesystem::path& path) {
  CAPSTAN_TRY(std::string bytes, read_file(path, kOpenbBytesMax));
  if (!bytes.starts_with(kZstdMagic)) return bytes;
  return decompress(path.string(), bytes);
}

// One line of a table, with what its messages need.
struct Row {
  std::string_view table;
  std::size_t line = 0;
  std::span<const std::string_view> columns;
  std::vector<std::string_view> cells;  // as columns

  std::string_view text(std::size_t column) const { return cells[column]; }
  Result<std::int64_t> number(std::size_t column, std::int64_t min, std::int64_t max) const {
    const auto value = parse_int(cells[column]);
    if (value && *value >= min && *value <= max) return *value;
    if (min == max) {
      return fail(Code::kInvalid, "{}:{}: {} is '{}', not {}", table, line, columns[column], cells[column],
                  min);
    }
    return fail(Code::kInvalid, "{}:{}: {} is '{}', not a number from {} to {}", table, line, columns[column],
                cells[column], min, max);
  }
};

// Calls visit(row) for every line after the header, with the cells of the named columns.
template <class Visit>
Result<void> visit_rows(std::string_view table, std::string_view csv,
                        std::span<const std::string_view> columns, Visit visit) {
  std::vector<std::string_view> lines = split(csv, '\n');
  while (!lines.empty() && trim(lines.back()).empty()) lines.pop_back();
  if (lines.empty()) return fail(Code::kInvalid, "{}: is empty; the first line names the columns", table);
  if (lines.size() - 1 > kOpenbRowsMax)
    return fail(Code::kInvalid, "{}: more than {} rows", table, kOpenbRowsMax);
  const std::vector<std::string_view> header = split(trim(lines[0]), ',');
  std::vector<std::size_t> places;
  for (const std::string_view column : columns) {
    const auto at = std::find(header.begin(), header.end(), column);
    if (at == header.end()) return fail(Code::kInvalid, "{}:1: no column '{}'", table, column);
    places.push_back(static_cast<std::size_t>(at - header.begin()));
  }
  Row row{.table = table, .line = 1, .columns = columns, .cells = {}};
  for (const std::string_view line : std::span(lines).subspan(1)) {
    ++row.line;
    const std::vector<std::string_view> cells = split(trim(line), ',');
    if (cells.size() != header.size()) {
      return fail(Code::kInvalid, "{}:{}: {} cells, the header has {}", table, row.line, cells.size(),
                  header.size());
    }
    row.cells.clear();
    for (const std::size_t place : places) row.cells.push_back(cells[place]);
    CAPSTAN_CHECK(visit(row));
  }
  return {};
}

Result<Capacity> read_capacity(const Row& row) {
  CAPSTAN_TRY(const std::int64_t milli_cpus, row.number(1, 0, 1'000'000'000));
  CAPSTAN_TRY(const std::int64_t mebibytes, row.number(2, 0, 1'000'000'000));
  return Capacity{.milli_cpus = milli_cpus, .memory_bytes = mebibytes * kMebibyte};
}

}  // namespace

std::int64_t gpu_milli_of(const Capacity& capacity) {
  return capacity.gpus * scheduler::kGpuMilli + capacity.gpu_milli;
}

Result<std::vector<OpenbNode>> parse_openb_nodes(std::string_view name, std::string_view csv) {
  static constexpr std::string_view kColumns[] = {"sn", "cpu_milli", "memory_mib", "gpu", "model"};
  std::vector<OpenbNode> out;
  CAPSTAN_CHECK(visit_rows(name, csv, kColumns, [&](const Row& row) -> Result<void> {
    CAPSTAN_TRY(Capacity capacity, read_capacity(row));
    CAPSTAN_TRY(capacity.gpus, row.number(3, 0, fleet::kGpusPerHostMax));
    out.push_back({std::string(row.text(0)), capacity, std::string(row.text(4))});
    return {};
  }));
  return out;
}

Result<std::vector<HostRequest>> parse_openb_pods(std::string_view name, std::string_view csv) {
  static constexpr std::string_view kColumns[] = {"name",    "cpu_milli", "memory_mib",
                                                  "num_gpu", "gpu_milli", "gpu_spec"};
  std::vector<HostRequest> out;
  CAPSTAN_CHECK(visit_rows(name, csv, kColumns, [&](const Row& row) -> Result<void> {
    HostRequest pod;
    CAPSTAN_TRY(pod.each, read_capacity(row));
    CAPSTAN_TRY(const std::int64_t gpus, row.number(3, 0, fleet::kGpusPerHostMax));
    if (gpus > 0) {
      CAPSTAN_TRY(const std::int64_t milli, row.number(4, gpus == 1 ? 1 : 1'000, 1'000));
      (milli == scheduler::kGpuMilli ? pod.each.gpus : pod.each.gpu_milli) =
          milli == scheduler::kGpuMilli ? gpus : milli;
    }
    for (const std::string_view model : split(row.text(5), '|')) {
      if (!model.empty()) pod.gpu_models.emplace_back(model);
    }
    std::sort(pod.gpu_models.begin(), pod.gpu_models.end());
    pod.gpu_models.erase(std::unique(pod.gpu_models.begin(), pod.gpu_models.end()), pod.gpu_models.end());
    out.push_back(std::move(pod));
    return {};
  }));
  return out;
}

Result<OpenbTrace> read_openb(const std::filesystem::path& nodes, const std::filesystem::path& pods) {
  OpenbTrace trace;
  CAPSTAN_TRY(const std::string nodes_csv, read_text(nodes));
  CAPSTAN_TRY(trace.nodes, parse_openb_nodes(nodes.string(), nodes_csv));
  CAPSTAN_TRY(const std::string pods_csv, read_text(pods));
  CAPSTAN_TRY(trace.pods, parse_openb_pods(pods.string(), pods_csv));
  return trace;
}

}  // namespace capstan::apps
