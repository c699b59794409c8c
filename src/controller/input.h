// Input: everything that can happen to the controller: commands from people, reports from workers, the
// passing of time.
//
// Each becomes one journal row (if it causes events) with its JSON, so that a later build can be asked
// whether it would decide the same.  Threads: values.  Failure: from_json refuses with kCorrupt or kInvalid.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "fleet/host.h"
#include "protocol/messages.h"
#include "workload/spec.h"

namespace capstan::controller {

// A controller process takes office. Ends a drain.
struct BeginEpoch {
  std::int64_t epoch = 0;
  std::string build;
};
// All specs or none. A dry run answers and changes nothing.
struct Apply {
  std::vector<workload::Spec> specs;
  bool dry_run = false;
};
struct Cancel {
  std::string name;
};
// Stops every rank, keeps what is wanted; the next epoch resumes it.
struct Drain {};
// A worker process introduces itself.
struct JoinHost {
  std::string host;
  std::string incarnation;
  std::string build;
  std::string logs_url;
  fleet::Capacity capacity;
  std::vector<protocol::Capability> capabilities;
};
struct SetHealth {
  std::string host;
  fleet::Health health = fleet::Health::kHealthy;
};
struct Reports {
  std::string host;
  std::vector<protocol::Report> reports;
};
struct Tick {};  // time has passed

struct Input {
  std::int64_t time_ms = 0;
  std::variant<BeginEpoch, Apply, Cancel, Drain, JoinHost, SetHealth, Reports, Tick> what;

  Json to_json() const;  // without the time, which is a column of its own
  static Result<Input> from_json(std::int64_t time_ms, const Json& json);
};

std::string_view health_name(fleet::Health health);
Result<fleet::Health> parse_health(std::string_view name);

}  // namespace capstan::controller
