// Bedrock's API on the gateway: Converse, ConverseStream, InvokeModel, InvokeModelWithResponseStream,
// CountTokens, ListFoundationModels, GetFoundationModel. docs/bedrock.md.
//
//   bedrock::add_routes(gateway, {.resolve = …, .models = …});
//   gateway.set_authenticator(std::make_unique<SigningAuthenticator>(bearer, signing_keys));
//
// Threads: as the gateway's.  Failure: Bedrock's exceptions, with status, x-amzn-errortype and message.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "gateway/gateway.h"

namespace capstan::gateway::bedrock {

// One model as the control plane lists it.
struct FoundationModel {
  std::string id;    // "openai.gpt-oss-20b-1:0", or the name that it is served under
  std::string name;  // the name that it is served under
  std::vector<std::string> modalities = {"text"};  // what it reads
};

struct Catalogue {
  // The served name for the first of these names that is known; nullopt if none is. Called on an event loop:
  // does not block.
  std::function<std::optional<std::string>(const std::vector<std::string>& names)> resolve;
  std::function<std::vector<FoundationModel>()> models;
};

// Before Gateway::mount().
void add_routes(Gateway& gateway, Catalogue catalogue);

}  // namespace capstan::gateway::bedrock
