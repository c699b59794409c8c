// What an agent's run has to do with the accounts of the local Capstan: prices from its catalogue, and what its sandboxes
// used, into its usage tables. Its tokens are metered by the gateway, under the key that it shows.
//
//   AgentAccount account(globals, spec.agent.model, key);
//   CAPSTAN_CHECK(account.price(spec));                       // before the run
//   account.record(spec.agent.name, result);                  // of each episode
//
// A run over another server has none, and so has one that finds no control API (its token is the user's who started Capstan):
// then nothing is recorded. What the API refuses is said once, on standard error. Threads: one call at a time.
#pragma once

#include <optional>
#include <string>

#include "agents/loop/runner.h"
#include "cli/api_client.h"

namespace capstan::apps {

class AgentAccount {
 public:
  // `server`: where the model is; empty: the local Capstan.
  AgentAccount(const cli::ConnectionOptions& connection, const std::string& server, std::string key);
  // Where the spec says no price, the catalogue's. kInvalid: it has a budget in dollars, and there is none.
  Result<void> price(agents::loop::AgentsSpec& spec);
  void record(const std::string& name, const agents::loop::EpisodeResult& result);

 private:
  Result<std::optional<agents::loop::Prices>> catalogue_price(const std::string& model);

  const std::string key_;
  const std::string run_;  // of the records' ids
  std::optional<cli::ApiClient> api_;
  bool warned_ = false;
};

}  // namespace capstan::apps
