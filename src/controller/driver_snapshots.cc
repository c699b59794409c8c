// How it works: two steps that cost the turn something, little: the fork, and one row of the journal.
#include "controller/driver_snapshots.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"

namespace capstan::controller {
namespace {

std::int64_t micros_since(std::chrono::steady_clock::time_point began) {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - began)
      .count();
}

}  // namespace

void Snapshots::started(const Loaded& loaded) {
  status_.text_bytes = loaded.snapshot_bytes;
  tail_bytes_ = loaded.tail_bytes;
  event_ = loaded.snapshot_event;
}

bool Snapshots::is_due(std::int64_t event_last) const {
  if (options_.every_events > 0) return event_last - event_ >= options_.every_events;
  return tail_bytes_ >= std::clamp(status_.text_bytes / 2, kRowBytesMin, kRowBytesMax);
}

void Snapshots::turn(const Controller& controller, std::int64_t now_ms) {
  if (snapshotter_.busy()) {
    const auto began = std::chrono::steady_clock::now();
    const auto written = snapshotter_.poll(now_ms);
    if (!written) return;
    end(*written, now_ms);
    status_.stall_micros_max = std::max(status_.stall_micros_max, micros_since(began));
  } else if (now_ms >= retry_at_ms_ && is_due(controller.state().event_last)) {
    if (!is_prepared()) return;
    const auto began = std::chrono::steady_clock::now();
    if (const auto begun = begin(controller, now_ms); !begun) failed(begun.error(), now_ms);
    status_.stall_micros_max = std::max(status_.stall_micros_max, micros_since(began));
  }
}

bool Snapshots::is_prepared() {
  if (journal_.snapshot_path(journal_.last_seq()).empty()) return true;  // nothing will be forked
  if (!std::exchange(preparing_, true)) snapshotter_.prepare();
  if (!snapshotter_.prepared()) return false;
  preparing_ = false;
  return true;
}

Result<void> Snapshots::begin(const Controller& controller, std::int64_t now_ms) {
  const auto write = [&](const journal::TextSink& sink) { write_snapshot(controller, sink); };
  const std::string path = journal_.snapshot_path(journal_.last_seq());
  if (path.empty()) {
    CAPSTAN_CHECK(journal_.save_snapshot(write));
    ++status_.saved;
    restart_count(controller);
    return {};
  }
  CAPSTAN_TRY(auto obsolete, journal_.obsolete_files());
  CAPSTAN_CHECK(snapshotter_.start({path, std::move(obsolete), options_.timeout_ms}, now_ms, write));
  seq_ = journal_.last_seq();
  restart_count(controller);
  return {};
}

void Snapshots::restart_count(const Controller& controller) {
  event_ = controller.state().event_last;
  tail_bytes_ = 0;
}

void Snapshots::end(const Result<journal::SnapshotFile>& written, std::int64_t now_ms) {
  if (!written) return failed(written.error(), now_ms);
  const auto kept = journal_.keep_snapshot({seq_, written->state_hash, written->text_bytes});
  if (!kept) return failed(kept.error(), now_ms);
  ++status_.saved;
  status_.text_bytes = written->text_bytes;
}

void Snapshots::failed(const Error& error, std::int64_t now_ms) {
  ++status_.failures;
  log_warn("no snapshot; it is tried again, and until then a start replays more rows", "why={}",
           error.message);
  retry_at_ms_ = now_ms + options_.retry_ms;
  // As much as ever makes the next one due at once.
  tail_bytes_ = kRowBytesMax;
  event_ = INT64_MIN / 2;
}

void Snapshots::finish(const Controller& controller) {
  const auto kept = journal_.snapshots();
  snapshotter_.cancel();
  if (kept && !kept->empty() && kept->front().seq == journal_.last_seq()) return;
  const auto saved =
      journal_.save_snapshot([&](const journal::TextSink& sink) { write_snapshot(controller, sink); });
  if (!saved) log_warn("no snapshot; the next start replays more rows", "why={}", saved.error().message);
}

}  // namespace capstan::controller
