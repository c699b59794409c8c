#include "apps/agent_account.h"

#include <cstdio>

#include "base/file.h"

namespace capstan::apps {

using namespace agents::loop;

AgentAccount::AgentAccount(const cli::ConnectionOptions& connection, const std::string& server, std::string key)
    : key_(std::move(key)), run_(random_hex(8)) {
  auto api = cli::ApiClient::connect(connection);
  if (api && (server.empty() || server == api->base_url())) api_.emplace(std::move(*api));
}

Result<std::optional<Prices>> AgentAccount::catalogue_price(const std::string& model) {
  if (!api_) return std::nullopt;
  CAPSTAN_TRY(const Json catalogue, api_->get("/api/v1/models"));
  const auto price_of = [&](const std::string& name) -> std::optional<Prices> {
    for (const Json& one : catalogue.find("models")->items()) {
      if (one.get_string("name") != name) continue;
      const Prices prices{one.get_int("price_input").value_or(0), one.get_int("price_cached").value_or(0),
                          one.get_int("price_output").value_or(0)};
      return prices == Prices{} ? std::nullopt : std::optional(prices);
    }
    return std::nullopt;
  };
  // Of an alias with several targets the dearest: a budget in dollars shall hold whichever answers.
  std::optional<Prices> out = price_of(model);
  for (const Json& alias : catalogue.find("aliases")->items()) {
    if (alias.get_string("name") != model) continue;
    for (const Json& target : alias.find("targets")->items()) {
      const auto price = price_of(target.get_string("model").value_or(""));
      if (price && (!out || price->output > out->output)) out = price;
    }
  }
  return out;
}

Result<void> AgentAccount::price(AgentsSpec& spec) {
  ModelSpec& model = spec.agent.model;
  if (!model.price) {
    CAPSTAN_TRY(model.price, catalogue_price(model.name));
  }
  if (model.price || spec.agent.budget.micro_dollars == 0) return {};
  return fail(Code::kInvalid,
              "the budget is in dollars, but what tokens of '{0}' cost is not known; write for example 'price: {{input: "
              "0.07, output: 0.30}}' in 'model', or: capstan model add {0} --price-input 0.07 --price-output 0.30",
              model.name);
}

void AgentAccount::record(const std::string& name, const EpisodeResult& result) {
  if (!api_) return;
  const End& end = result.end;
  Json record = Json::object({{"id", fmt::format("agent/{}/{}-{}", run_, result.key.task, result.key.episode)},
                              {"name", name},
                              {"wall_ms", end.took_ms},
                              {"cpu_us", end.cpu_us},
                              {"memory_mib_ms", result.memory_mib_ms},
                              {"memory_peak_bytes", end.memory_peak_bytes}});
  Json body = Json::object({{"records", Json::array({std::move(record)})}});
  if (!key_.empty()) body["key"] = key_;
  const auto recorded = api_->post("/api/v1/usage/agents", body.dump());
  if (recorded || std::exchange(warned_, true)) return;
  fmt::print(stderr, "capstan: what the sandboxes use is not in the usage tables: {}\n", recorded.error().message);
}

}  // namespace capstan::apps
