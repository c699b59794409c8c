// HostTasks: what runs on hosts, as their workers know it: filled by effects, drained by reports.
//
// A host's report says which of its tasks have ended well, and which have started since its last one. Tasks
// that began together end apart: each end is that of one task, picked at random. Threads: one owner.
#pragma once

#include <cstdint>
#include <vector>

#include "base/prng.h"
#include "controller/controller.h"

namespace capstan::apps::bench {

class HostTasks {
 public:
  explicit HostTasks(std::size_t hosts) : hosts_(hosts) {}

  void take(const std::vector<controller::HostEffect>& effects);
  // Ends `ends` of the host's tasks that it has called started before, as far as there are so many, and
  // counts them in `ended`. Without a thing to say the report has no tasks.
  controller::Reports report(const controller::State& state, std::size_t host, std::int64_t ends,
                             std::int64_t& ended);

 private:
  // Consecutive tasks of one attempt.
  struct Run {
    std::int64_t job = 0;
    std::int64_t attempt = 1;
    std::int64_t begin = 0;
    std::int64_t end = 0;
  };
  struct Host {
    std::vector<Run> running;
    std::vector<Run> fresh;  // not yet called started
    std::int64_t tasks = 0;  // in `running`
  };

  std::vector<Host> hosts_;
  Prng prng_{1};
};

}  // namespace capstan::apps::bench
