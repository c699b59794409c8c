#include "apps/up/inference.h"

#include <prometheus/registry.h>

#include <array>
#include <set>

#include "gateway/bedrock/bedrock.h"
#include "store/secret_box.h"

namespace capstan::apps {
namespace {

std::set<std::string> served_models(const gateway::ReplicaDirectory& replicas) {
  std::set<std::string> names;
  for (const gateway::Replica& replica : replicas.replicas()) names.insert(replica.model);
  for (const auto& [model, why] : replicas.waiting()) names.insert(model);
  return names;
}

// Bedrock's own id for OpenAI's open models, else the name that the model is served under.
std::string bedrock_id(const std::string& name) {
  std::string_view plain = name;
  if (plain.starts_with("openai/")) plain.remove_prefix(7);
  return plain.starts_with("gpt-oss-") ? fmt::format("openai.{}-1:0", plain) : name;
}

gateway::bedrock::Catalogue bedrock_catalogue(const gateway::ReplicaDirectory& replicas) {
  return {.resolve = [&replicas](const std::vector<std::string>& names) -> std::optional<std::string> {
            const auto served = served_models(replicas);
            for (const std::string& name : names) {
              if (served.contains(name)) return name;
            }
            return std::nullopt;
          },
          .models =
              [&replicas] {
                std::vector<gateway::bedrock::FoundationModel> models;
                for (const std::string& name : served_models(replicas))
                  models.push_back({.id = bedrock_id(name), .name = name});
                return models;
              }};
}

}  // namespace

Inference::Inference(std::unique_ptr<store::Database> database, const gateway::ReplicaDirectory& replicas,
                     std::shared_ptr<prometheus::Registry> registry)
    : database_(std::move(database)), gateway_(replicas, std::move(registry)) {}

Result<std::unique_ptr<Inference>> Inference::open(const DataDirectory& data,
                                                   const gateway::ReplicaDirectory& replicas,
                                                   std::shared_ptr<prometheus::Registry> registry) {
  const std::array parts = {&gateway::openai::kResponseTables, &gateway::openai::kFileTables,
                            &gateway::openai::kBatchTables};
  CAPSTAN_TRY(auto database, store::open_sqlite(data.path() / "tables.sqlite", parts, {}));
  CAPSTAN_TRY(std::string key, store::load_or_make_key(data.path() / "secrets.key"));
  std::unique_ptr<Inference> inference(new Inference(std::move(database), replicas, std::move(registry)));
  CAPSTAN_TRY(inference->openai_,
              gateway::openai::OpenAiApi::make(inference->gateway_, *inference->database_,
                                               {.files = data.path() / "files", .seal_key = std::move(key)}));
  gateway::bedrock::add_routes(inference->gateway_, bedrock_catalogue(replicas));
  return inference;
}

}  // namespace capstan::apps
