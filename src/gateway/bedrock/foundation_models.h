// Bedrock's control plane: ListFoundationModels and GetFoundationModel, over the models that are served.
// Pure.
#pragma once

#include "gateway/bedrock/bedrock.h"

namespace capstan::gateway::bedrock {

// Filters of the query: byProvider, byOutputModality, byInferenceType, byCustomizationType.
http::Response list_foundation_models(const Catalogue& catalogue, const http::Request& request);
http::Response get_foundation_model(const Catalogue& catalogue, const http::Request& request);

}  // namespace capstan::gateway::bedrock
