// The OpenAPI 3.1 document of the control API, made from one table of its operations.
#pragma once

#include "base/json.h"

namespace capstan::api {

Json openapi_document();
Json openapi_schemas();  // of what is answered, by name

}  // namespace capstan::api
