// The parts of a spec that say what ranks get and where they run, read from YAML for spec_yaml.cc.
#pragma once

#include "workload/spec.h"
#include "workload/yaml_fields.h"

namespace capstan::workload {

void read_command(Context& context, MappingReader& mapping, std::vector<std::string>& out);
void read_resources(Context& context, MappingReader& mapping, Resources& out);
// `placement`. Wants the kind and, of a job, its ranks.
void read_placement(Context& context, MappingReader& mapping, Spec& spec);
// `ranks`, `ranks_min` and `helpers` of a job; refused in other kinds.
void read_gang(Context& context, MappingReader& mapping, Spec& spec);
// A path that may be relative to the file that names it.
void read_path(Context& context, MappingReader& mapping, std::string_view key, std::string& out);
// `sandbox` of a task array. Wants its resources.
void read_task_sandbox(Context& context, MappingReader& mapping, Spec& spec);
// What only a sandbox has, and what it does not. Wants its resources.
void read_session(Context& context, MappingReader& mapping, Spec& spec);
// What only the whole document tells: a share of a GPU in a gang, `ranks_min` that cuts a segment.
void check_gang(Context& context, const MappingReader& mapping, const Spec& spec);

}  // namespace capstan::workload
