// Requests of the Responses API with the tool code_interpreter: checked, given a container, and begun.
//
//   gateway.divert("/v1/responses", CodeRequests::takes, [&](…) { requests.begin(request, caller, writer); }, to_response);
//
// `auto` goes on in the container of the conversation's last call (by previous_response_id, or among the input's
// items), if it is still there. Uploaded files that it names are in the container's working directory. Threads: begin on one
// that may block.  Failure: 400 without containers, 404 an unknown
// container, 503 while their host is away; and as code_loop.h.
#pragma once

#include "gateway/openai/background.h"
#include "gateway/openai/code_loop.h"
#include "gateway/openai/file_store.h"
#include "gateway/openai/responses_state.h"

namespace capstan::gateway::openai {

class CodeRequests {
 public:
  // `runner` may be null: there are no containers. All outlive this.
  CodeRequests(Gateway& gateway, ResponsesState& state, BackgroundResponses& background, const FileStore& files,
               CodeRunner* runner)
      : gateway_(gateway), state_(state), background_(background), files_(files), runner_(runner) {}
  static bool takes(const http::Request& request);
  // The writer gets the answer, unless this is an error.
  std::expected<void, ApiError> begin(const http::Request& request, const CallerPtr& caller,
                                      const http::ResponseWriterPtr& writer);

 private:
  std::expected<void, ApiError> give_container(ResponsesCall& call, const Json::Array& previous, const Caller& caller);
  // Those that the request names, and the model is told of them.
  std::expected<std::vector<CodeRunner::File>, ApiError> give_files(ResponsesCall& call, const std::string& owner) const;

  Gateway& gateway_;
  ResponsesState& state_;
  BackgroundResponses& background_;
  const FileStore& files_;
  CodeRunner* const runner_;
};

}  // namespace capstan::gateway::openai
