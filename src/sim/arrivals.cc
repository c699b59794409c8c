// How it works: the first arrival of each source is held; the earliest goes out.
#include "sim/arrivals.h"

#include <utility>

namespace capstan::sim {
namespace {

class Merged : public ArrivalSource {
 public:
  explicit Merged(std::vector<std::unique_ptr<ArrivalSource>> sources) : sources_(std::move(sources)) {
    for (const auto& source : sources_) heads_.push_back(source->next());
  }

  std::optional<Arrival> next() override {
    std::size_t first = heads_.size();
    for (std::size_t i = 0; i < heads_.size(); ++i) {
      if (heads_[i] && (first == heads_.size() || heads_[i]->time_ms < heads_[first]->time_ms)) first = i;
    }
    if (first == heads_.size()) return std::nullopt;
    return std::exchange(heads_[first], sources_[first]->next());
  }

 private:
  std::vector<std::unique_ptr<ArrivalSource>> sources_;
  std::vector<std::optional<Arrival>> heads_;
};

}  // namespace

std::unique_ptr<ArrivalSource> merge(std::vector<std::unique_ptr<ArrivalSource>> sources) {
  return std::make_unique<Merged>(std::move(sources));
}

}  // namespace capstan::sim
