// Question: how many rows a second does the journal make durable, by size of row and of batch, and how fast
// are they verified when read back?
//
//   journal_bench [DIRECTORY] [--small]
//
// One line a case: rows/s, MB/s, the longest commit, and reading back; the fingerprint is the chain's end
// (with fixed rows it must not change). DIRECTORY (default: the temporary one) decides which disk is
// measured.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>

#include "base/prng.h"
#include "base/sha256.h"
#include "journal/journal.h"

namespace capstan::journal {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point began) {
  return std::chrono::duration<double>(Clock::now() - began).count();
}

// Text like that of events: digits and words, not all the same.
std::string text_of(std::size_t bytes, Prng& prng) {
  std::string text = "[";
  while (text.size() + 60 < bytes) {
    text += fmt::format("{{\"type\":\"tasks_started\",\"job\":{},\"from\":{},\"to\":{}}},", prng.below(100),
                        prng.below(1'000'000), prng.below(1'000'000));
  }
  return text + std::string(bytes - text.size() - 1, ' ') + "]";
}

struct Case {
  std::size_t row_bytes;
  int batch;
  bool fsync;
};

Result<void> measure(const std::string& path, const Case& one, std::int64_t rows_total) {
  CAPSTAN_TRY(auto journal, open_sqlite_journal(path, {.fsync = one.fsync}));
  Prng prng(7);
  const std::string text = text_of(one.row_bytes, prng);
  double longest = 0, appending = 0;
  std::int64_t seq = 0;
  while (seq < rows_total) {
    std::vector<Row> rows;
    for (int i = 0; i < one.batch; ++i) {
      ++seq;
      rows.push_back({seq, 1'700'000'000'000 + seq, "build-0123456789abcdef0123456789abcdef01234567",
                      "{\"type\":\"reports\"}", text, seq * 10});
    }
    const auto began = Clock::now();
    CAPSTAN_CHECK(journal->append(rows));
    const double took = seconds_since(began);
    appending += took;
    longest = std::max(longest, took);
  }
  const auto began = Clock::now();
  std::string end;
  CAPSTAN_CHECK(journal->read(1, [&](const Row& row) -> Result<void> {
    if (row.seq == seq) end = sha256_hex(row.events + std::to_string(row.seq));
    return {};
  }));
  const double reading = seconds_since(began);
  const double rows = static_cast<double>(seq), megabytes = rows * static_cast<double>(one.row_bytes) / 1e6;
  fmt::print(
      "row {:>5} B, batch {:>5}, fsync {:>3}: {:>8.0f} rows/s {:>6.1f} MB/s, longest commit {:>7.2f} ms; "
      "read {:>8.0f} rows/s {:>6.1f} MB/s; {}\n",
      one.row_bytes, one.batch, one.fsync ? "on" : "off", rows / appending, megabytes / appending,
      longest * 1e3, rows / reading, megabytes / reading, end.substr(0, 8));
  std::fflush(stdout);
  return {};
}

int run(std::filesystem::path directory, bool small) {
  directory /= "journal_bench_" + std::to_string(::getpid());
  std::filesystem::create_directories(directory);
  int code = 0;
  for (const std::size_t bytes : {200u, 5'000u}) {
    for (const int batch : {1, 10, 100, 1'000}) {
      for (const bool fsync : {true, false}) {
        const std::int64_t rows =
            small ? 2 * batch : std::min(bytes == 200 ? 200'000 : 60'000, 2'000 * batch);
        const auto path = directory / fmt::format("{}-{}-{}.sqlite", bytes, batch, fsync);
        if (const auto done = measure(path.string(), {bytes, batch, fsync}, rows); !done) {
          fmt::print(stderr, "journal_bench: {}\n", done.error().message);
          code = 1;
        }
      }
    }
  }
  std::filesystem::remove_all(directory);
  return code;
}

}  // namespace
}  // namespace capstan::journal

int main(int argc, char** argv) {
  bool small = false;
  std::filesystem::path directory = std::filesystem::temp_directory_path();
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--small") {
      small = true;
    } else {
      directory = argv[i];
    }
  }
  return capstan::journal::run(directory, small);
}
