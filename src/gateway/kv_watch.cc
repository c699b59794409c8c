// How: a question is one GET; it keeps its replica's state until its end, and is put away at the next turn, since it may not be
// destroyed from within its own callback's caller.
#include "gateway/kv_watch.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <charconv>

namespace capstan::gateway {
namespace {

namespace ondemand = simdjson::ondemand;

std::optional<std::uint64_t> read_name(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// ["+", name, before] or ["-", name].
void apply_change(ondemand::array change, routing::ReportedBlocks& blocks) {
  bool added = false;
  int at = 0;
  for (auto part : change) {
    const std::string_view text = part.get_string();
    if (at == 0) added = text == "+";
    if (at == 1) {
      const auto name = read_name(text);
      if (!name) return;
      added ? blocks.add(*name) : blocks.remove(*name);
    }
    ++at;
  }
}

}  // namespace

bool apply_kv_report(std::string_view json, CachedPrefixes& cache) try {
  thread_local ondemand::parser parser;
  const simdjson::padded_string padded(json);
  ondemand::document document = parser.iterate(padded);
  const std::string epoch(std::string_view(document["epoch"].get_string()));
  const std::int64_t sequence = document["sequence"].get_int64();
  const std::int64_t block_tokens = document["block_tokens"].get_int64();
  if (!read_name(epoch) || sequence < 0 || block_tokens < 1 || block_tokens > 65'536) return false;
  if (document["reset"].get_bool()) cache.reported.reset();
  for (auto change : document["changes"].get_array()) apply_change(change.get_array(), cache.reported);
  cache.epoch = epoch;
  cache.sequence = sequence;
  cache.block_tokens = block_tokens;
  cache.source = CachedPrefixes::Source::kReported;
  return true;
} catch (const simdjson::simdjson_error&) {
  return false;
}

std::vector<std::uint64_t> read_prompt_blocks(std::string_view json) try {
  thread_local ondemand::parser parser;
  const simdjson::padded_string padded(json);
  ondemand::document document = parser.iterate(padded);
  std::vector<std::uint64_t> names;
  for (auto block : document["blocks"].get_array()) {
    const auto name = read_name(block.get_string());
    if (!name) return {};
    names.push_back(*name);
  }
  return names;
} catch (const simdjson::simdjson_error&) {
  return {};
}

class KvWatch::Question final : public http::CallSink {
 public:
  Question(KvWatch& watch, std::string url, ReplicaStatePtr state)
      : watch_(watch), url_(std::move(url)), state_(std::move(state)) {
    const CachedPrefixes& cache = state_->cache;
    head_.target = cache.epoch.empty() ? std::string("/v1/kv_blocks")
                                       : fmt::format("/v1/kv_blocks?epoch={}&since={}", cache.epoch, cache.sequence);
    call_ = watch_.client_.start(url_, head_, {}, {.connect_timeout_ms = 1'000, .silence_timeout_ms = 2'000}, *this);
  }
  void on_head(http::Response& head) override { status_ = head.status; }
  void on_piece(std::string_view piece) override {
    if (answer_.size() + piece.size() <= kAnswerBytesMax) answer_.append(piece);
  }
  void on_end(Result<void> result) override {
    // While it is loading (503) or out of reach nothing is said of what it is.
    const bool answered = result && status_ != 503;
    if (answered && (status_ != 200 || !apply_kv_report(answer_, state_->cache)) &&
        state_->cache.source == CachedPrefixes::Source::kUnknown)
      state_->cache.source = CachedPrefixes::Source::kBelieved;
    auto node = watch_.questions_.extract(state_.get());
    watch_.over_.push_back(std::move(node.mapped()));
  }

 private:
  KvWatch& watch_;
  const std::string url_;
  ReplicaStatePtr state_;
  http::Request head_;
  int status_ = 0;
  std::string answer_;
  std::unique_ptr<http::AsyncCall> call_;
};

KvWatch::KvWatch(http::EventLoop& loop, http::AsyncClient& client, std::function<std::shared_ptr<ReplicaTable>()> table)
    : loop_(loop), client_(client), table_(std::move(table)), timer_(loop, [this] { turn(); }) {
  timer_.arm(kPollMs);
}
KvWatch::~KvWatch() = default;

void KvWatch::turn() {
  timer_.arm(kPollMs);
  over_.clear();
  const auto table = table_();
  if (!table) return;
  for (auto& [model, services] : table->by_model) {
    for (ServiceReplicas& service : services) {
      for (std::size_t at = 0; at < service.replicas.size(); ++at) {
        const ReplicaStatePtr& state = service.states[at];
        const bool wanted = service.replicas[at].ready && state->considered_ms != 0 &&
                            loop_.now_ms() - state->considered_ms < kConsideredMs &&
                            state->cache.source != CachedPrefixes::Source::kBelieved;
        if (wanted && !questions_.contains(state.get()))
          questions_.emplace(state.get(), std::make_unique<Question>(*this, service.replicas[at].url, state));
      }
    }
  }
}

}  // namespace capstan::gateway
