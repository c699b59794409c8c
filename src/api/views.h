// The controller's state as the control API shows it: JSON for people and programs. docs/api.md lists the members.
//
// Pure functions of the state; the caller reads the state through the driver.
#pragma once

#include "base/json.h"
#include "controller/state.h"

namespace capstan::api {

inline constexpr std::size_t kTasksShownMax = 1000;  // running tasks of one array in one answer

// One line of a list: name, kind, state, ready, wanted, attempt, reason, times.
Json workload_summary(const controller::Workload& workload);
// The summary, the spec, and every rank, replica or running task.
Json workload_details(const controller::Workload& workload);
Json host_view(const std::string& name, const controller::Host& host, const scheduler::Inventory& inventory);

}  // namespace capstan::api
