// How it works: one controller decides; after a difference it is put back to the last checkpoint (its own
// text, or the snapshot that the replay began with) and follows the journal's events up to where the replay
// stands.
#include "sim/replay.h"

#include "controller/controller.h"
#include "controller/driver_load.h"

namespace capstan::sim {
namespace {

using controller::Controller;
using controller::Input;
using journal::Row;

class Replayer {
 public:
  Replayer(journal::Journal& journal, const ReplayOptions& options) : journal_(journal), options_(options) {}

  Result<Replay> run() {
    CAPSTAN_TRY(const auto snapshots, journal_.snapshots());
    std::int64_t from = 0;
    if (journal_.begin_seq() > 0) {
      if (snapshots.empty())
        return fail(Code::kCorrupt, "rows before {} were pruned, but there is no snapshot",
                    journal_.begin_seq() + 1);
      const journal::SnapshotRef& oldest = snapshots.back();
      CAPSTAN_TRY(checkpoint_, journal_.snapshot_text(oldest));
      from = oldest.seq;
    }
    checkpoint_row_ = from;
    out_.first_row = from + 1;
    CAPSTAN_CHECK(renew());
    CAPSTAN_CHECK(journal_.read(from + 1, [&](const Row& row) { return take(row); }));
    out_.state_hash = controller_.state_hash();
    return std::move(out_);
  }

 private:
  // The controller anew from the checkpoint; the policy that is tried is not part of the text.
  Result<void> renew() {
    controller_ = Controller();
    if (!checkpoint_.empty()) {
      CAPSTAN_TRY(controller_, Controller::from_snapshot_text(checkpoint_));
    }
    return {};
  }

  void note_checkpoint(std::int64_t row) {
    checkpoint_.clear();
    controller_.write_snapshot([&](std::string_view piece) { checkpoint_ += piece; });
    checkpoint_row_ = row;
  }

  Result<void> take(const Row& row) {
    CAPSTAN_TRY(const Json json, Json::parse(row.input));
    auto input = Input::from_json(row.time_ms, json);
    if (!input)
      return std::unexpected(std::move(input).error().with_context(fmt::format("journal row {}", row.seq)));
    CAPSTAN_TRY(const Json::Array expected, controller::events_of(row));
    const bool office = std::holds_alternative<controller::BeginEpoch>(input->what);
    if (office || row.seq - checkpoint_row_ > kCheckpointRows) {
      note_checkpoint(row.seq - 1);
      if (office) CAPSTAN_CHECK(renew());
    }
    ++out_.rows;
    out_.events += static_cast<std::int64_t>(expected.size());
    if (!options_.order.empty())
      (void)controller_.apply({row.time_ms, controller::SetPolicy{options_.order, -1}});
    const auto outcome = controller_.apply(*input);
    std::size_t at = 0;
    const auto text = [](const Json& event) { return event.dump(); };
    while (at < expected.size() && at < outcome.events.size() &&
           text(expected[at]) == text(outcome.events[at]))
      ++at;
    if (at == expected.size() && at == outcome.events.size()) return {};
    const std::string type = json.get_string("type").value_or("?");
    ++out_.differences;
    ++out_.inputs[type];
    if (out_.kept.size() < kDifferencesKept) {
      out_.kept.push_back({row.seq, row.time_ms, row.build, type,
                           at < expected.size() ? text(expected[at]) : "",
                           at < outcome.events.size() ? text(outcome.events[at]) : ""});
    }
    if (!options_.all && options_.order.empty()) return fail(Code::kCancelled, "");
    return follow_to(row.seq);
  }

  // Back to the checkpoint, then what the journal says, up to this row.
  Result<void> follow_to(std::int64_t row_last) {
    CAPSTAN_CHECK(renew());
    const auto followed = journal_.read(checkpoint_row_ + 1, [&](const Row& row) -> Result<void> {
      if (row.seq > row_last) return fail(Code::kCancelled, "");
      CAPSTAN_TRY(const Json::Array events, controller::events_of(row));
      for (const Json& event : events) CAPSTAN_CHECK(controller_.replay(row.time_ms, event));
      return {};
    });
    if (!followed && followed.error().code != Code::kCancelled) return followed;
    note_checkpoint(row_last);
    return renew();
  }

  journal::Journal& journal_;
  ReplayOptions options_;
  Controller controller_;
  std::string checkpoint_;
  std::int64_t checkpoint_row_ = 0;
  Replay out_;

 public:
  Replay take_out() { return std::move(out_); }
};

}  // namespace

Result<Replay> replay_journal(journal::Journal& journal, const ReplayOptions& options) {
  Replayer replayer(journal, options);
  auto replay = replayer.run();
  if (!replay && replay.error().code == Code::kCancelled)
    return replayer.take_out();  // it ended at the first difference
  return replay;
}

}  // namespace capstan::sim
