// How it works: a deque in order of sequence; an acknowledgement drops its front.
#include "worker/report_queue.h"

#include <algorithm>

namespace capstan::worker {

void ReportQueue::on_push(std::function<void()> wake) {
  const std::lock_guard lock(mutex_);
  wake_ = std::move(wake);
}

void ReportQueue::push(std::string_view type, const RankId& id, Json fields) {
  std::function<void()> wake;
  {
    const std::lock_guard lock(mutex_);
    Json report = Json::object({{"seq", next_sequence_++},
                                {"type", type},
                                {"job", id.job},
                                {"attempt", id.attempt},
                                {"rank", id.rank}});
    if (fields.is_object()) {
      for (auto& [name, value] : fields.members()) report[name] = std::move(value);
    }
    reports_.push_back(std::move(report));
    wake = wake_;
  }
  if (wake) wake();
}

std::vector<Json> ReportQueue::oldest(std::size_t count_max) const {
  const std::lock_guard lock(mutex_);
  return {reports_.begin(),
          reports_.begin() + static_cast<std::ptrdiff_t>(std::min(count_max, reports_.size()))};
}

void ReportQueue::acknowledge(std::int64_t sequence) {
  const std::lock_guard lock(mutex_);
  while (!reports_.empty() && reports_.front().get_int("seq").value_or(0) <= sequence) reports_.pop_front();
}

bool ReportQueue::empty() const {
  const std::lock_guard lock(mutex_);
  return reports_.empty();
}

std::int64_t ReportQueue::last_sequence() const {
  const std::lock_guard lock(mutex_);
  return next_sequence_ - 1;
}

}  // namespace capstan::worker
