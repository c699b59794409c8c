#include "api/openapi_routes.h"

#include <string>
#include <string_view>

namespace capstan::api {
namespace {

struct Route {
  std::string_view method;
  std::string_view path;
  std::string_view id;
  std::string_view summary;
};

constexpr Route kAccounts[] = {
    {"get", "/api/v1/organisations", "listOrganisations", "Organisations"},
    {"post", "/api/v1/organisations", "addOrganisation", "Make one {name}"},
    {"post", "/api/v1/organisations/{name}/remove", "removeOrganisation", "Remove one that has no projects"},
    {"get", "/api/v1/projects", "listProjects", "Projects"},
    {"post", "/api/v1/projects", "addProject", "Make one {project, weight}"},
    {"post", "/api/v1/projects/remove", "removeProject", "Remove one that has no keys {project}"},
    {"get", "/api/v1/keys", "listKeys", "Keys, without their secrets"},
    {"post", "/api/v1/keys", "addKey",
     "Make one; the answer alone shows it {project, name, role, scopes, models, tier, expires, signing}"},
    {"post", "/api/v1/keys/revoke", "revokeKey", "End one at once {key}"},
    {"get", "/api/v1/limits", "listLimits", "Limits with what is used and held"},
    {"post", "/api/v1/limits", "setLimit", "Set one {subject, model, unit, window, amount}"},
    {"post", "/api/v1/limits/{id}/remove", "removeLimit", "Remove one"},
    {"get", "/api/v1/usage", "getUsage", "Tokens and cost, by model, project, key or day"},
    {"get", "/api/v1/usage/requests", "listUsageRequests", "The latest requests, one by one"},
    {"post", "/api/v1/usage/agents", "recordAgents", "What agents' sandboxes used {key, records}"},
    {"get", "/api/v1/models", "listCatalogue", "The catalogue of models and their aliases"},
    {"post", "/api/v1/models", "putModel", "Add a model or change what is said of it"},
    {"post", "/api/v1/models/remove", "removeModel", "Remove one that no alias points to {name}"},
    {"post", "/api/v1/aliases", "setAlias", "Give models another name {name, targets}"},
    {"get", "/api/v1/audit", "listAudit", "Who changed what"},
};

// Those of /v1 also under /openai/v1.
constexpr Route kInference[] = {
    {"get", "/v1/models", "openaiListModels", "What is served, ready or not"},
    {"get", "/v1/models/{model}", "openaiGetModel", "One of them"},
    {"post", "/v1/chat/completions", "openaiChat", "OpenAI's chat completions"},
    {"post", "/v1/completions", "openaiCompletions", "OpenAI's completions"},
    {"post", "/v1/embeddings", "openaiEmbeddings", "OpenAI's embeddings, where a model gives them"},
    {"post", "/v1/responses", "openaiResponses", "OpenAI's responses"},
    {"get", "/v1/responses/{id}", "openaiGetResponse", "A stored response"},
    {"delete", "/v1/responses/{id}", "openaiDeleteResponse", "Remove it"},
    {"get", "/v1/responses/{id}/input_items", "openaiInputItems", "What it was given"},
    {"post", "/v1/conversations", "openaiCreateConversation", "A list of items that responses go on from"},
    {"get", "/v1/conversations/{id}", "openaiGetConversation", "Its metadata"},
    {"post", "/v1/conversations/{id}", "openaiUpdateConversation", "Change its metadata"},
    {"delete", "/v1/conversations/{id}", "openaiDeleteConversation", "Remove it and its items"},
    {"get", "/v1/conversations/{id}/items", "openaiListConversationItems", "Its items"},
    {"post", "/v1/conversations/{id}/items", "openaiAddConversationItems", "Add items"},
    {"get", "/v1/conversations/{id}/items/{item}", "openaiGetConversationItem", "One item"},
    {"delete", "/v1/conversations/{id}/items/{item}", "openaiDeleteConversationItem", "Remove one item"},
    {"post", "/v1/responses/input_tokens", "openaiCountTokens", "How many tokens a request would be"},
    {"post", "/v1/responses/{id}/cancel", "openaiCancelResponse", "End one that runs in the background"},
    {"get", "/v1/files", "openaiListFiles", "Files of the project"},
    {"post", "/v1/files", "openaiAddFile", "Upload one (multipart)"},
    {"get", "/v1/files/{id}", "openaiGetFile", "One of them"},
    {"delete", "/v1/files/{id}", "openaiDeleteFile", "Remove it"},
    {"get", "/v1/files/{id}/content", "openaiFileContent", "Its bytes"},
    {"get", "/v1/batches", "openaiListBatches", "Batches of the project"},
    {"post", "/v1/batches", "openaiAddBatch", "Run a file's lines"},
    {"get", "/v1/batches/{id}", "openaiGetBatch", "One of them"},
    {"post", "/v1/batches/{id}/cancel", "openaiCancelBatch", "End it; what is done stays"},
    {"post", "/model/{model}/converse", "bedrockConverse", "Bedrock's Converse"},
    {"post", "/model/{model}/converse-stream", "bedrockConverseStream", "Bedrock's ConverseStream"},
    {"post", "/model/{model}/invoke", "bedrockInvoke", "Bedrock's InvokeModel"},
    {"post", "/model/{model}/invoke-with-response-stream", "bedrockInvokeStream", "Bedrock's InvokeModelWithResponseStream"},
    {"post", "/model/{model}/count-tokens", "bedrockCountTokens", "Bedrock's CountTokens"},
    {"get", "/foundation-models", "bedrockListModels", "Bedrock's ListFoundationModels"},
    {"get", "/foundation-models/{model}", "bedrockGetModel", "Bedrock's GetFoundationModel"},
};

Json parameters_of(std::string_view path) {
  Json out = Json::array();
  for (std::size_t open = path.find('{'); open != std::string_view::npos; open = path.find('{', open + 1)) {
    const std::string_view name = path.substr(open + 1, path.find('}', open) - open - 1);
    const Json schema = Json::object({{"type", "string"}});
    out.push_back(Json::object({{"name", name}, {"in", "path"}, {"required", true}, {"schema", schema}}));
  }
  return out;
}

void add(Json& paths, const Route& route, std::string_view path) {
  Json operation = Json::object({{"operationId", route.id}, {"summary", route.summary}, {"parameters", parameters_of(path)}});
  if (route.method == "post") {
    Json body = Json::object();
    body["content"][route.path == "/v1/files" ? "multipart/form-data" : "application/json"] = Json::object();
    operation["requestBody"] = std::move(body);
  }
  Json json = Json::object({{"application/json", Json::object()}});
  operation["responses"] = Json::object({{"200", Json::object({{"description", "done"}, {"content", json}})},
                                         {"default", Json::object({{"description", "refused or failed"}, {"content", json}})}});
  operation["security"] = Json::array({Json::object({{"token", Json::array()}})});
  paths[path][route.method] = std::move(operation);
}

}  // namespace

void add_account_and_inference_routes(Json& paths) {
  for (const Route& route : kAccounts) add(paths, route, route.path);
  for (const Route& route : kInference) add(paths, route, route.path);
}

}  // namespace capstan::api
