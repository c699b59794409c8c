#include "gateway/queue/gates.h"

namespace capstan::gateway {

std::vector<Gates::Start> Gates::Gate::take(const FairQueue::Started& started) {
  std::vector<Start> out;
  for (const std::uint64_t id : started) {
    if (auto node = starts.extract(id)) out.push_back(std::move(node.mapped()));
  }
  return out;
}

Gates::Gate* Gates::find(std::string_view model) const {
  const std::shared_lock lock(mutex_);
  const auto found = gates_.find(model);
  return found == gates_.end() ? nullptr : found->second.get();
}

FairQueue::Entry Gates::enter(std::string_view model, const QueueItem& item, const std::function<int()>& capacity,
                              Start start) {
  Gate* gate = find(model);
  if (gate == nullptr) {
    QueueOptions options = options_;
    options.requests_max = capacity();
    const std::unique_lock lock(mutex_);
    auto& made = gates_[std::string(model)];
    if (!made) made = std::make_unique<Gate>(options);
    gate = made.get();
  }
  const std::lock_guard lock(gate->mutex);
  const auto entry = gate->queue.enter(item);
  if (entry == FairQueue::Entry::kWaits) gate->starts.emplace(item.id, std::move(start));
  return entry;
}

void Gates::leave(std::string_view model, std::uint64_t id, std::int64_t tokens) {
  Gate* gate = find(model);
  if (gate == nullptr) return;
  std::vector<Start> starts;
  {
    const std::lock_guard lock(gate->mutex);
    gate->starts.erase(id);
    starts = gate->take(gate->queue.leave(id, tokens));
  }
  for (const Start& start : starts) start();
}

void Gates::set_capacity(std::string_view model, int requests_max) {
  Gate* gate = find(model);
  if (gate == nullptr) return;
  std::vector<Start> starts;
  {
    const std::lock_guard lock(gate->mutex);
    if (gate->queue.requests_max() == requests_max) return;
    starts = gate->take(gate->queue.set_capacity(requests_max, 0));
  }
  for (const Start& start : starts) start();
}

std::vector<std::string> Gates::models() const {
  const std::shared_lock lock(mutex_);
  std::vector<std::string> out;
  for (const auto& [model, gate] : gates_) out.push_back(model);
  return out;
}

std::pair<int, std::size_t> Gates::load_of(std::string_view model) const {
  Gate* gate = find(model);
  if (gate == nullptr) return {0, 0};
  const std::lock_guard lock(gate->mutex);
  return {gate->queue.running(), gate->queue.waiting()};
}

}  // namespace capstan::gateway
