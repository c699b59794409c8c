// Logs of ranks: the worker of the rank's host has them; the API relays its answer.
#pragma once

#include <string>

#include "api/backend.h"
#include "http/client.h"
#include "http/server.h"

namespace capstan::api {

struct LogRelay {
  Backend& backend;
  http::Client& client;
  const std::string& worker_token;
  // Answers GET /api/v1/workloads/{name}/logs.
  void operator()(const http::Request& request, const http::ResponseWriterPtr& writer) const;
};

}  // namespace capstan::api
