// Errors of the control API on the wire.
#pragma once

#include <vector>

#include "http/message.h"
#include "workload/spec.h"

namespace capstan::api {

int status_of(Code code);
http::Response to_response(const Error& error);
http::Response to_response(const std::vector<workload::Diagnostic>& diagnostics);

}  // namespace capstan::api
