#include "gateway/bedrock/foundation_models.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/file.h"
#include "base/text.h"
#include "gateway/bedrock/bedrock_error.h"
#include "gateway/bedrock/model_id.h"

namespace capstan::gateway::bedrock {
namespace {

// The region that a signature names; SDKs need some region in an ARN.
std::string region_of(const http::Request& request) {
  const std::string authorization = request.headers.get("authorization");
  const auto parts = split(authorization, '/');
  return parts.size() > 3 ? std::string(parts[2]) : "us-east-1";
}

std::string provider_of(const FoundationModel& model) {
  const auto dot = model.id.find('.');
  if (dot == std::string::npos) return "Capstan";
  return model.id.starts_with("openai.") ? "OpenAI" : model.id.substr(0, dot);
}

std::string upper(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return text;
}

Json describe(const FoundationModel& model, const std::string& region) {
  Json inputs = Json::array();
  for (const std::string& modality : model.modalities) inputs.push_back(upper(modality));
  return Json::object({{"modelArn", model_arn(region, model.id)},
                       {"modelId", model.id},
                       {"modelName", model.name},
                       {"providerName", provider_of(model)},
                       {"inputModalities", std::move(inputs)},
                       {"outputModalities", Json::array({"TEXT"})},
                       {"responseStreamingSupported", true},
                       {"customizationsSupported", Json::array()},
                       {"inferenceTypesSupported", Json::array({"ON_DEMAND"})},
                       {"modelLifecycle", Json::object({{"status", "ACTIVE"}})}});
}

http::Response answer(const http::Request&, const Json& body) {
  http::Response response = http::Response::json(200, body);
  response.headers.set("x-amzn-requestid", random_hex(16));
  return response;
}

// The values that a filter may have, as the service model states them; nothing if it has one of them.
std::optional<http::Response> refuse_filter(const http::Request& request, std::string_view key,
                                            std::initializer_list<std::string_view> values) {
  const auto wanted = request.query_value(key);
  if (!wanted || std::ranges::find(values, *wanted) != values.end()) return std::nullopt;
  return to_response({400, "ValidationException",
                      fmt::format("1 validation error detected: Value at '{}' failed to satisfy constraint: Member must satisfy "
                                  "enum value set: [{}]",
                                  key, fmt::join(values, ", "))},
                     random_hex(16));
}

}  // namespace

http::Response list_foundation_models(const Catalogue& catalogue, const http::Request& request) {
  if (auto refused = refuse_filter(request, "byOutputModality", {"TEXT", "IMAGE", "EMBEDDING"})) return *std::move(refused);
  if (auto refused = refuse_filter(request, "byInferenceType", {"ON_DEMAND", "PROVISIONED"})) return *std::move(refused);
  if (auto refused =
          refuse_filter(request, "byCustomizationType", {"FINE_TUNING", "CONTINUED_PRE_TRAINING", "DISTILLATION"}))
    return *std::move(refused);
  const auto other_than = [&](std::string_view key, std::string_view value) {
    const auto wanted = request.query_value(key);
    return wanted && to_lower(*wanted) != to_lower(value);
  };
  Json list = Json::array();
  // No model here is customised, and all are served on demand and answer in text.
  const bool none = other_than("byOutputModality", "TEXT") || other_than("byInferenceType", "ON_DEMAND") ||
                    request.query_value("byCustomizationType").has_value();
  for (const FoundationModel& model : none ? std::vector<FoundationModel>() : catalogue.models()) {
    if (!other_than("byProvider", provider_of(model))) list.push_back(describe(model, region_of(request)));
  }
  return answer(request, Json::object({{"modelSummaries", std::move(list)}}));
}

http::Response get_foundation_model(const Catalogue& catalogue, const http::Request& request) {
  const auto names = served_names(request.param("model"));
  for (const FoundationModel& model : catalogue.models()) {
    const bool named = std::ranges::find(names, model.id) != names.end() ||
                       std::ranges::find(names, model.name) != names.end();
    if (named) return answer(request, Json::object({{"modelDetails", describe(model, region_of(request))}}));
  }
  return to_response({404, "ResourceNotFoundException",
                      fmt::format("no model is served as '{}'; GET /foundation-models lists those that are",
                                  request.param("model"))},
                     random_hex(16));
}

}  // namespace capstan::gateway::bedrock
