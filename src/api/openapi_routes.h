// The routes of the OpenAPI document whose bodies other documents describe: tenants, keys, usage and the catalogue
// (docs/gateway-tenants.md, docs/models.md), and inference in OpenAI's and Bedrock's API.
#pragma once

#include "base/json.h"

namespace capstan::api {

// Adds to `paths` of the document.
void add_account_and_inference_routes(Json& paths);

}  // namespace capstan::api
