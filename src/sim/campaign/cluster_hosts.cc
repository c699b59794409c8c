// How it works: a worker has at most one call out; what it says is kept until it is acknowledged, what it is
// told may come twice or not at all. A rank is started once in its life; an end is remembered until the
// controller says to forget it.
#include <algorithm>

#include "base/text.h"
#include "sim/campaign/cluster.h"

namespace capstan::sim::campaign {

using protocol::RankId;
using protocol::RankPhase;

namespace {

constexpr std::int64_t kCallTimeoutMs = 12'000;

std::set<int> gpus_of(const protocol::StartRank& start) {
  std::set<int> out;
  for (const auto& [name, value] : start.env) {
    if (name != "CUDA_VISIBLE_DEVICES") continue;
    for (const auto& part : split(value, ',')) {
      if (const auto number = parse_int(part)) out.insert(static_cast<int>(*number));
    }
  }
  return out;
}

}  // namespace

void Cluster::step_host(std::size_t at) {
  Host& host = hosts_[at];
  if (!host.up) {
    if (now_ms_ < host.back_ms) return;
    host.up = true;
    host.worker_back_ms = now_ms_;
    note(host.name + " has booted");
  }
  for (auto& [id, rank] : host.ranks) {
    if (rank.phase == RankPhase::kExited) continue;
    if (rank.phase == RankPhase::kStarting && now_ms_ >= rank.starts_ms) {
      rank.phase = RankPhase::kRunning;
      say(host, id, protocol::RankStarted{100, 0});
      if (rank.service) say(host, id, protocol::RankReady{"127.0.0.1", 20'000});
    }
    if (rank.stop_ms >= 0 && now_ms_ >= rank.stop_ms) {
      end_rank(host, id, rank, 0, true, false);
    } else if (!rank.service && rank.phase == RankPhase::kRunning && now_ms_ >= rank.ends_ms) {
      end_rank(host, id, rank, rank.exit_code, false, false);
    }
  }
  if (now_ms_ < host.worker_back_ms) return;
  if (host.call != 0 && now_ms_ - host.call_ms > kCallTimeoutMs) {
    host.call = 0;
    hit("a call timed out");
  }
  if (host.call == 0 && now_ms_ >= host.call_ms + (host.outbox.empty() ? 400 : 0)) call(at);
}

void Cluster::call(std::size_t at) {
  Host& host = hosts_[at];
  auto request = std::make_shared<protocol::SyncRequest>();  // shared by a message and its duplicate
  request->worker = host.name;
  request->incarnation = host.incarnation;
  request->build = "campaign";
  request->epoch_seen = host.epoch_seen;
  request->resources = host.capacity;
  request->logs_url = "http://127.0.0.1:1";
  request->effects_done = host.effects_done;
  if (host.full) {
    auto& list = request->ranks.emplace();
    for (const auto& [id, rank] : host.ranks) list.push_back({id, rank.phase});
  }
  for (std::size_t i = 0; i < host.outbox.size() && i < 100; ++i) request->reports.push_back(host.outbox[i]);
  host.call = ++calls_made_;
  host.call_ms = now_ms_;
  send({.at_ms = 0,
        .number = 0,
        .host = at,
        .call = host.call,
        .to_controller = true,
        .request = std::move(request),
        .answer = nullptr});
}

void Cluster::send(Message message) {
  Host& host = hosts_[message.host];
  if (now_ms_ < host.cut_until_ms) return;
  const bool bad = now_ms_ < bad_net_until_ms_;
  const auto delay = [&] {
    std::int64_t ms = net_.between(1, 3) * kStepMs / 2;
    if (bad) ms += net_.between(0, 30) * kStepMs;
    if (now_ms_ < host.slow_until_ms) ms += net_.between(10, 60) * kStepMs;
    return ms;
  };
  if (bad && net_.below(5) == 0) return hit("a message was lost");
  message.number = ++messages_made_;
  message.at_ms = now_ms_ + delay();
  messages_.push_back(message);
  if (bad && net_.below(4) == 0) {
    message.at_ms = now_ms_ + delay();
    message.number = ++messages_made_;
    messages_.push_back(std::move(message));
    hit("a message was sent twice");
  }
}

void Cluster::deliver() {
  std::vector<Message> due;
  std::erase_if(messages_, [&](Message& message) {
    if (message.at_ms > now_ms_) return false;
    due.push_back(std::move(message));
    return true;
  });
  std::stable_sort(due.begin(), due.end(), [](const Message& a, const Message& b) {
    return std::pair(a.at_ms, a.number) < std::pair(b.at_ms, b.number);
  });
  for (const Message& message : due) {
    Host& host = hosts_[message.host];
    if (now_ms_ < host.cut_until_ms) continue;
    if (!message.to_controller) {
      take_answer(message.host, message);
      continue;
    }
    if (controller_ == nullptr) continue;
    const auto answer = [this, at = message.host, call = message.call](Result<protocol::SyncAnswer> what) {
      send({.at_ms = 0,
            .number = 0,
            .host = at,
            .call = call,
            .to_controller = false,
            .request = nullptr,
            .answer = std::make_shared<const Result<protocol::SyncAnswer>>(std::move(what))});
    };
    // What goes over the wire is text.
    const auto request = protocol::SyncRequest::from_json(message.request->to_json());
    if (!request || *request != *message.request) return fail("a request does not survive the wire");
    sessions_->take(controller_->state(), *request, answer, now_ms_,
                    [this](decltype(controller::Input::what) what) { (void)feed(std::move(what)); });
  }
}

void Cluster::take_answer(std::size_t at, const Message& message) {
  Host& host = hosts_[at];
  if (!host.up || now_ms_ < host.worker_back_ms || host.call != message.call) {
    hit("an answer came to nobody");
    return;
  }
  host.call = 0;
  host.call_ms = now_ms_;
  if (!message.answer->has_value()) return;
  const protocol::SyncAnswer& answer = **message.answer;
  const auto read = protocol::SyncAnswer::from_json(answer.to_json());
  if (!read || *read != answer) return fail("an answer does not survive the wire");
  if (answer.epoch != host.epoch_seen) {
    if (host.epoch_seen != 0) hit("a worker met a new controller");
    host.epoch_seen = answer.epoch;
    host.effects_done = 0;
  }
  host.full = answer.full;
  while (!host.outbox.empty() && host.outbox.front().seq <= answer.reports_acked) host.outbox.pop_front();
  for (const protocol::Effect& effect : answer.effects) {
    if (effect.id > 0 && effect.id <= host.effects_done) continue;
    do_effect(host, effect);
    host.effects_done = std::max(host.effects_done, effect.id);
  }
}

void Cluster::do_effect(Host& host, const protocol::Effect& effect) {
  const RankId& id = effect.rank;
  const auto known = host.ranks.find(id);
  if (const auto* start = std::get_if<protocol::StartRank>(&effect.body)) {
    if (known == host.ranks.end()) return start_rank(host, id, *start);
    hit("a start came for a rank that is known");
    if (known->second.phase == RankPhase::kRunning) say(host, id, protocol::RankStarted{100, 0});
    if (known->second.phase == RankPhase::kExited) {
      protocol::RankExited exit;
      exit.exit_code = known->second.exit_code;
      exit.stopped = known->second.stop_ms >= 0;
      say(host, id, exit);
    }
  } else if (std::holds_alternative<protocol::StopRank>(effect.body)) {
    if (known == host.ranks.end()) {
      hit("a stop overtook its start");
      host.ranks[id].phase = RankPhase::kExited;  // it will not be started any more
      host.ranks[id].stop_ms = now_ms_;
      protocol::RankExited exit;
      exit.stopped = true;
      exit.signal = 15;
      say(host, id, exit);
    } else if (known->second.phase == RankPhase::kExited) {
      protocol::RankExited exit;
      exit.exit_code = known->second.exit_code;
      exit.stopped = known->second.stop_ms >= 0;
      say(host, id, exit);
    } else if (known->second.stop_ms < 0) {
      known->second.stop_ms = now_ms_ + net_.between(1, 15) * kStepMs;
    }
  } else if (known != host.ranks.end() && known->second.phase == RankPhase::kExited) {
    host.ranks.erase(known);
  }
}

void Cluster::start_rank(Host& host, const RankId& id, const protocol::StartRank& start) {
  if (!started_.insert(id).second)
    return fail(fmt::format("rank {} was started twice, the second time on {}", id.text(), host.name));
  SimRank rank;
  rank.gpus = gpus_of(start);
  if (static_cast<std::int64_t>(rank.gpus.size()) != start.resources.gpus && start.resources.gpu_milli == 0)
    return fail(
        fmt::format("rank {} was given {} GPUs of {}", id.text(), rank.gpus.size(), start.resources.gpus));
  for (const auto& [other, one] : host.ranks) {
    if (one.phase == RankPhase::kExited) continue;
    for (const int gpu : rank.gpus) {
      if (one.gpus.contains(gpu))
        return fail(fmt::format("GPU {} of {} is given to {} while {} has it", gpu, host.name, id.text(),
                                other.text()));
    }
  }
  rank.starts_ms = now_ms_ + net_.between(1, 10) * kStepMs;
  rank.ends_ms = rank.starts_ms + net_.between(5, 400) * kStepMs;
  rank.service = start.kind == "service";
  rank.exit_code = net_.below(60) == 0 ? 1 : 0;
  if (rank.exit_code != 0) hit("a rank failed by itself");
  host.ranks[id] = std::move(rank);
}

void Cluster::end_rank(Host& host, const RankId& id, SimRank& rank, int code, bool stopped, bool lost) {
  rank.phase = RankPhase::kExited;
  rank.exit_code = code;
  protocol::RankExited exit;
  if (lost) {
    exit.lost = true;
  } else if (stopped) {
    exit.stopped = true;
    exit.signal = 15;
  } else {
    exit.exit_code = code;
  }
  say(host, id, exit);
}

void Cluster::say(Host& host, const RankId& id, decltype(protocol::Report::body) body) {
  host.outbox.push_back({++host.seq, id, std::move(body)});
}

}  // namespace capstan::sim::campaign
