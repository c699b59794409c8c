#include "apps/up/inference.h"

#include <prometheus/registry.h>

#include <array>
#include <set>

#include "apps/up/session_host.h"
#include "gateway/bedrock/bedrock.h"
#include "store/secret_box.h"

namespace capstan::apps {
namespace {

constexpr int kDirectoryTtlMs = 25;  // how stale the list of replicas may be

std::set<std::string> served_models(const gateway::ReplicaDirectory& replicas) {
  std::set<std::string> names;
  for (const gateway::Replica& replica : replicas.replicas()) names.insert(replica.model);
  for (const auto& [model, why] : replicas.waiting()) names.insert(model);
  for (std::string& alias : replicas.aliases()) names.insert(std::move(alias));
  return names;
}

// Bedrock's own id for OpenAI's open models, else the name that the model is served under.
std::string bedrock_id(const std::string& name) {
  std::string_view plain = name;
  if (plain.starts_with("openai/")) plain.remove_prefix(7);
  return plain.starts_with("gpt-oss-") ? fmt::format("openai.{}-1:0", plain) : name;
}

gateway::bedrock::Catalogue bedrock_catalogue(const gateway::ReplicaDirectory& replicas,
                                              const store::Catalogue& catalogue) {
  return {.resolve = [&](const std::vector<std::string>& names) -> std::optional<std::string> {
            const auto served = served_models(replicas);
            for (const std::string& name : names) {
              if (served.contains(name)) return name;
              if (catalogue.find(name)) return name;
            }
            return std::nullopt;
          },
          .models =
              [&] {
                std::vector<gateway::bedrock::FoundationModel> models;
                for (const std::string& name : served_models(replicas)) {
                  const store::ModelPtr model = catalogue.find(name);
                  models.push_back({.id = bedrock_id(name), .name = name});
                  if (model) models.back().modalities = model->modalities;
                }
                return models;
              }};
}

}  // namespace

Inference::Inference(std::unique_ptr<Tenancy> tenancy, const DataDirectory& data,
                     const gateway::ReplicaDirectory& replicas, std::shared_ptr<prometheus::Registry> registry)
    : tenancy_(std::move(tenancy)),
      directory_(replicas, tenancy_->catalogue()),
      gateway_(directory_, std::move(registry),
               {.directory_ttl_ms = kDirectoryTtlMs, .access_log = (data.path() / "log/access.log").string()}),
      code_(data.path() / kSessionsAddress),
      containers_(data.path() / kSessionsAddress) {}

Result<std::unique_ptr<Inference>> Inference::open(const DataDirectory& data,
                                                   const gateway::ReplicaDirectory& replicas,
                                                   std::shared_ptr<prometheus::Registry> registry,
                                                   const TenancyOptions& options) {
  const std::array tables = {&gateway::openai::kChatTables, &gateway::openai::kResponseTables,
                             &gateway::openai::kConversationTables, &gateway::openai::kFileTables,
                             &gateway::openai::kBatchTables};
  CAPSTAN_TRY(auto tenancy, Tenancy::open(data.path(), replicas, tables, options));
  CAPSTAN_TRY(std::string key, store::load_or_make_key(data.path() / "secrets.key"));
  std::unique_ptr<Inference> inference(new Inference(std::move(tenancy), data, replicas, std::move(registry)));
  Tenancy& house = *inference->tenancy_;
  house.plug_into(inference->gateway_);
  CAPSTAN_TRY(inference->openai_,
              gateway::openai::OpenAiApi::make(inference->gateway_, house.database(),
                                               {.files = data.path() / "files",
                                                .seal_key = std::move(key),
                                                .code = &inference->code_,
                                                .containers = &inference->containers_}));
  gateway::bedrock::add_routes(inference->gateway_, bedrock_catalogue(inference->directory_, house.catalogue()));
  return inference;
}

}  // namespace capstan::apps
