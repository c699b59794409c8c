// Logs of ranks and results of task arrays: workers have them; the API relays their answers.
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

// Results of the tasks of an array that ran in sandboxes: one JSON object a line, host by host.
struct ResultsRelay {
  Backend& backend;
  http::Client& client;
  const std::string& worker_token;
  // Answers GET /api/v1/workloads/{name}/results.
  void operator()(const http::Request& request, const http::ResponseWriterPtr& writer) const;
};

}  // namespace capstan::api
