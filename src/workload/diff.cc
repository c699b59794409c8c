#include "base/assert.h"
#include "workload/quantity.h"
#include "workload/spec.h"

namespace capstan::workload {
namespace {

std::string join(const std::vector<std::string>& command) {
  if (command.size() == 3 && command[0] == "/bin/sh" && command[1] == "-c") return command[2];
  Json::Array words(command.begin(), command.end());
  return Json(std::move(words)).dump();
}

std::string milli_gpus(const Resources& resources) {
  return format_milli_gpus(resources.gpus * 1000 + resources.gpu_milli);
}

std::string describe(const std::optional<HelpersSpec>& helpers) {
  if (!helpers) return "none";
  std::string text =
      fmt::format("{} with {} cpus", helpers->ranks, format_milli_cpus(helpers->resources.milli_cpus));
  if (helpers->resources.memory_bytes > 0)
    text += fmt::format(", {}", format_bytes(helpers->resources.memory_bytes));
  if (helpers->resources.gpus + helpers->resources.gpu_milli > 0)
    text += fmt::format(", {} gpus", milli_gpus(helpers->resources));
  if (!helpers->command.empty()) text += fmt::format(": {}", join(helpers->command));
  return text;
}

std::string describe(const std::optional<AutoscaleSpec>& autoscale) {
  if (!autoscale) return "none";
  std::string text = fmt::format("{} to {}", autoscale->min, autoscale->max);
  if (autoscale->ttft_ms > 0) text += ", ttft " + format_duration_ms(autoscale->ttft_ms);
  if (autoscale->tpot_ms > 0) text += ", tpot " + format_duration_ms(autoscale->tpot_ms);
  return text + ", calm " + format_duration_ms(autoscale->calm_ms);
}

std::string describe(const std::optional<EngineSpec>& engine) {
  if (!engine) return "none";
  return engine->context == 0 ? engine->model
                              : fmt::format("{} with context {}", engine->model, engine->context);
}

std::string describe(std::optional<bool> given) { return !given ? "default" : *given ? "true" : "false"; }

std::string describe(const std::optional<HealthCheck>& health) {
  if (!health) return "none";
  return fmt::format("{} every {}, timeout {}, start within {}", health->path,
                     format_duration_ms(health->interval_ms), format_duration_ms(health->timeout_ms),
                     format_duration_ms(health->start_timeout_ms));
}

std::string describe(const std::optional<std::vector<std::string>>& hosts) {
  return hosts ? fmt::format("[{}]", fmt::join(*hosts, ", ")) : "the template's";
}

std::string describe(const std::optional<TaskSandbox>& sandbox) {
  return sandbox ? to_json(*sandbox, false).dump() : "none";
}

std::string timeout(const SessionSpec& session) {
  return session.timeout_ms == 0 ? "none" : format_duration_ms(session.timeout_ms);
}

// Collects what differs; each compare names the field, what a change of it restarts, and how to print it.
class Differ {
 public:
  void text(std::string path, const std::string& from, const std::string& to, Restart restart) {
    if (from != to) changes_.push_back({std::move(path), from, to, restart});
  }
  void integer(std::string path, std::int64_t from, std::int64_t to, Restart restart) {
    text(std::move(path), std::to_string(from), std::to_string(to), restart);
  }
  void duration(std::string path, std::int64_t from, std::int64_t to, Restart restart) {
    if (from != to) text(std::move(path), format_duration_ms(from), format_duration_ms(to), restart);
  }
  void pairs(const std::string& path, const Spec::Pairs& from, const Spec::Pairs& to, Restart restart) {
    const auto find = [](const Spec::Pairs& all, const std::string& key) -> const std::string* {
      for (const auto& [name, value] : all) {
        if (name == key) return &value;
      }
      return nullptr;
    };
    for (const auto& [key, value] : from) {
      const std::string* now = find(to, key);
      if (now == nullptr) changes_.push_back({path + "." + key, value, "", restart});
      if (now != nullptr) text(path + "." + key, value, *now, restart);
    }
    for (const auto& [key, value] : to) {
      if (find(from, key) == nullptr) changes_.push_back({path + "." + key, "", value, restart});
    }
  }
  std::vector<Change> take() { return std::move(changes_); }

 private:
  std::vector<Change> changes_;
};

void compare_placement(Differ& differ, const PlacementSpec& from, const PlacementSpec& to, Restart restart) {
  differ.integer("placement.segment", from.segment, to.segment, restart);
  differ.text("placement.required", std::string(fleet::level_name(from.required)),
              std::string(fleet::level_name(to.required)), restart);
  differ.text("placement.preferred", std::string(fleet::level_name(from.preferred)),
              std::string(fleet::level_name(to.preferred)), restart);
  differ.text("placement.gpu_model", from.gpu_model, to.gpu_model, restart);
  differ.text("placement.host_class", from.host_class, to.host_class, restart);
  differ.text("placement.cluster", from.cluster, to.cluster, restart);
  differ.text("placement.region", from.region, to.region, restart);
  differ.text("placement.reservation", from.reservation, to.reservation, restart);
}

void compare_kind(Differ& differ, const Spec& from, const Spec& to) {
  switch (from.kind) {
    case Kind::kJob:
      differ.integer("ranks", from.ranks, to.ranks, Restart::kRanks);
      differ.integer("ranks_min", from.ranks_min, to.ranks_min, Restart::kNone);
      if (from.helpers != to.helpers)
        differ.text("helpers", describe(from.helpers), describe(to.helpers), Restart::kRanks);
      differ.duration("checkpoint.interval", from.checkpoint.interval_ms, to.checkpoint.interval_ms,
                      Restart::kNone);
      differ.duration("time_limit", from.time_limit_ms, to.time_limit_ms, Restart::kNone);
      break;
    case Kind::kService:
      differ.integer("replicas", from.replicas, to.replicas, Restart::kNone);
      if (from.autoscale != to.autoscale)
        differ.text("autoscale", describe(from.autoscale), describe(to.autoscale), Restart::kNone);
      differ.integer("weight", from.weight, to.weight, Restart::kNone);
      if (from.engine != to.engine)
        differ.text("engine", describe(from.engine), describe(to.engine), Restart::kRanks);
      differ.text("model_name", from.model_name, to.model_name, Restart::kRanks);
      differ.duration("hedge_after", from.hedge_after_ms, to.hedge_after_ms, Restart::kNone);
      differ.text("http2", describe(from.http2), describe(to.http2), Restart::kNone);
      differ.integer("port", from.port, to.port, Restart::kRanks);
      if (from.health != to.health)
        differ.text("health", describe(from.health), describe(to.health), Restart::kRanks);
      break;
    case Kind::kTasks:
      // A last chunk that is not full may have run.
      differ.integer("count", from.count, to.count,
                     to.count < from.count || from.count % from.chunk() != 0 ? Restart::kRefused : Restart::kNone);
      differ.integer("parallelism", from.parallelism, to.parallelism, Restart::kNone);
      differ.integer("retries", from.retries, to.retries, Restart::kNone);
      differ.duration("timeout", from.timeout_ms, to.timeout_ms, Restart::kNone);
      if (from.sandbox != to.sandbox)
        differ.text("sandbox", describe(from.sandbox), describe(to.sandbox), Restart::kRefused);
      break;
    case Kind::kSandbox:
      differ.text("template", from.session.template_name, to.session.template_name, Restart::kRefused);
      differ.text("timeout", timeout(from.session), timeout(to.session), Restart::kRefused);
      if (from.session.allow != to.session.allow)
        differ.text("network.allow", describe(from.session.allow), describe(to.session.allow), Restart::kRefused);
      break;
  }
}

}  // namespace

std::vector<Change> differences(const Spec& from, const Spec& to) {
  CAPSTAN_ASSERT(from.kind == to.kind);
  // What the running processes were started with: a task array keeps one command for all its tasks; a sandbox that
  // started again would be empty.
  const bool keeps = from.kind == Kind::kTasks || from.kind == Kind::kSandbox;
  const Restart process = keeps ? Restart::kRefused : Restart::kRanks;
  Differ differ;
  differ.text("name", from.name, to.name, Restart::kRefused);
  differ.text("tenant", from.tenant, to.tenant, Restart::kNone);
  differ.integer("priority", from.priority, to.priority, Restart::kNone);
  differ.pairs("labels", from.labels, to.labels, Restart::kNone);
  differ.text("user", from.user, to.user, process);
  if (from.command != to.command) differ.text("command", join(from.command), join(to.command), process);
  differ.pairs("env", from.env, to.env, process);
  differ.text("workdir", from.workdir, to.workdir, process);
  differ.text("resources.cpus", format_milli_cpus(from.resources.milli_cpus),
              format_milli_cpus(to.resources.milli_cpus), process);
  differ.text("resources.memory", format_bytes(from.resources.memory_bytes),
              format_bytes(to.resources.memory_bytes), process);
  differ.text("resources.gpus", milli_gpus(from.resources), milli_gpus(to.resources), process);
  compare_placement(differ, from.placement, to.placement, process);
  differ.text("preemptible", from.preemptible ? "true" : "false", to.preemptible ? "true" : "false",
              Restart::kNone);
  differ.duration("grace", from.grace_ms, to.grace_ms, Restart::kNone);
  differ.integer("restarts.budget", from.restarts.budget, to.restarts.budget, Restart::kNone);
  differ.duration("restarts.backoff", from.restarts.backoff_ms, to.restarts.backoff_ms, Restart::kNone);
  differ.duration("restarts.backoff_max", from.restarts.backoff_max_ms, to.restarts.backoff_max_ms,
                  Restart::kNone);
  compare_kind(differ, from, to);
  return differ.take();
}

}  // namespace capstan::workload
