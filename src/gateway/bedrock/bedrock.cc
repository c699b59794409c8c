#include "gateway/bedrock/bedrock.h"

#include "gateway/bedrock/converse_exchange.h"
#include "gateway/bedrock/count_tokens_exchange.h"
#include "gateway/bedrock/foundation_models.h"
#include "gateway/bedrock/invoke_exchange.h"

namespace capstan::gateway::bedrock {

void add_routes(Gateway& gateway, Catalogue catalogue) {
  const auto all = std::make_shared<const Catalogue>(std::move(catalogue));  // shared with the routes
  for (const bool stream : {false, true}) {
    gateway.add_exchange("POST", stream ? "/model/{model}/converse-stream" : "/model/{model}/converse",
                         [all, stream] { return std::make_unique<ConverseExchange>(*all, stream); });
    gateway.add_exchange("POST",
                         stream ? "/model/{model}/invoke-with-response-stream" : "/model/{model}/invoke",
                         [all, stream] { return std::make_unique<InvokeExchange>(*all, stream); });
  }
  gateway.add_exchange("POST", "/model/{model}/count-tokens",
                       [all] { return std::make_unique<CountTokensExchange>(*all); });
  const auto shape = [](const ApiError& error) { return to_response(from_openai(error), {}); };
  for (const std::string prefix : {"/model/", "/foundation-models"}) gateway.add_surface(prefix, shape);
  gateway.add_endpoint(
      "GET", "/foundation-models",
      [all](const http::Request& request, const CallerPtr&, const http::ResponseWriterPtr& writer) {
        writer->respond(list_foundation_models(*all, request));
      },
      shape);
  gateway.add_endpoint(
      "GET", "/foundation-models/{model}",
      [all](const http::Request& request, const CallerPtr&, const http::ResponseWriterPtr& writer) {
        writer->respond(get_foundation_model(*all, request));
      },
      shape);
}

}  // namespace capstan::gateway::bedrock
