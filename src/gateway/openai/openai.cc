#include "gateway/openai/openai.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <ctime>

#include "base/file.h"
#include "base/text.h"
#include "gateway/openai/chats.h"
#include "gateway/openai/containers.h"
#include "gateway/openai/conversations.h"
#include "gateway/openai/embeddings_exchange.h"
#include "gateway/openai/endpoints.h"
#include "gateway/openai/input_tokens_exchange.h"
#include "gateway/openai/responses_checks.h"
#include "gateway/openai/responses_exchange.h"
#include "gateway/openai_error.h"
#include "http/multipart.h"

namespace capstan::gateway::openai {
namespace {

std::unexpected<Error> bad_part(std::string_view name, std::string message) {
  return std::unexpected(Error{.code = Code::kInvalid, .message = std::move(message), .field = std::string(name)});
}

// An upload's form as a file; `expires_after[seconds]` counts from now.
Result<FileStore::New> file_of(const http::Request& request) {
  CAPSTAN_TRY(const std::vector<http::Part> parts,
              http::parse_multipart(request.headers.get("content-type"), request.content()));
  FileStore::New file;
  bool content = false;
  for (const http::Part& part : parts) {
    if (part.name == "file") {
      file.name = part.filename.empty() ? "file" : part.filename;
      file.content = part.content;
      content = true;
    } else if (part.name == "purpose") {
      file.purpose = part.content;
    } else if (part.name == "expires_after[anchor]" && part.content != "created_at") {
      return bad_part(part.name, fmt::format("'expires_after[anchor]' must be created_at, not '{}'", part.content));
    } else if (part.name == "expires_after[seconds]") {
      const auto seconds = parse_int(part.content);
      if (!seconds || *seconds < 3600 || *seconds > 2'592'000)
        return bad_part(part.name, fmt::format("'expires_after[seconds]' must be 3600 to 2592000, not '{}'", part.content));
      file.expires = static_cast<std::int64_t>(std::time(nullptr)) + *seconds;
    }
  }
  if (!content) return bad_part("file", "the form has no part 'file'");
  if (file.content.empty()) return bad_part("file", "the file is empty");
  constexpr std::array<std::string_view, 6> kPurposes = {"assistants", "batch", "evals", "fine-tune", "user_data", "vision"};
  if (std::ranges::find(kPurposes, file.purpose) == kPurposes.end())
    return bad_part("purpose", fmt::format("the form must have a part 'purpose' that is one of {}, not '{}'",
                                           fmt::join(kPurposes, ", "), file.purpose));
  if (file.name.size() > 512) return bad_part("file", "the file's name may have 512 bytes");
  return file;
}

}  // namespace

Result<std::unique_ptr<OpenAiApi>> OpenAiApi::make(Gateway& gateway, store::Database& database,
                                                   OpenAiOptions options) {
  CAPSTAN_TRY(auto files, FileStore::open(database, std::move(options.files)));
  std::unique_ptr<OpenAiApi> api(new OpenAiApi(gateway, database, std::move(options), std::move(files)));
  CAPSTAN_CHECK(api->responses_.store().fail_interrupted());
  return api;
}

OpenAiApi::OpenAiApi(Gateway& gateway, store::Database& database, OpenAiOptions options,
                     std::unique_ptr<FileStore> files)
    : files_(std::move(files)),
      chats_(database),
      responses_(database, std::move(options.seal_key)),
      background_(gateway, responses_),
      code_(gateway, responses_, background_, *files_, options.code),
      batches_(gateway, database, *files_) {
  gateway.add_exchange("POST", "/v1/embeddings", [] { return std::make_unique<EmbeddingsExchange>(); });
  add_chats(gateway, chats_);
  add_responses(gateway);
  add_conversations(gateway, responses_.conversations());
  add_files(gateway);
  add_batches(gateway);
  add_containers(gateway, options.containers, *files_);
}

void OpenAiApi::start() { batches_.start(); }

void OpenAiApi::add_responses(Gateway& gateway) {
  gateway.add_exchange(
      "POST", "/v1/responses", [this] { return std::make_unique<ResponsesExchange>(responses_); },
      Gateway::Blocking::kBegin);
  gateway.add_exchange(
      "POST", "/v1/responses/input_tokens", [this] { return std::make_unique<InputTokensExchange>(responses_); },
      Gateway::Blocking::kBegin);
  gateway.divert(
      "/v1/responses",
      [](const http::Request& request) { return CodeRequests::takes(request) || BackgroundResponses::takes(request); },
      [this](const http::Request& request, const CallerPtr& caller, const http::ResponseWriterPtr& writer) {
        const auto begun = CodeRequests::takes(request) ? code_.begin(request, caller, writer)
                                                        : background_.begin(request, caller, writer);
        if (!begun) writer->respond(with_id(request, to_response(begun.error())));
      },
      to_response);
  gateway.add_endpoint(
      "GET", "/v1/responses/{id}",
      [this](const http::Request& request, const CallerPtr& caller, const http::ResponseWriterPtr& writer) {
        if (request.query_value("stream") == "true") return follow(request, *caller, writer);
        writer->respond(with_id(request, stored_response(request, *caller)));
      },
      to_response);
  route(gateway, "DELETE", "/v1/responses/{id}", [this](const http::Request& request, const Caller& caller) {
    const std::string id = request.param("id");
    const auto removed = responses_.store().remove(owner_of(caller), id);
    return answer_of(removed
                         ? Result<Json>(Json::object({{"id", id}, {"object", "response"}, {"deleted", true}}))
                         : std::unexpected(removed.error()));
  });
  route(gateway, "GET", "/v1/responses/{id}/input_items",
        [this](const http::Request& request, const Caller& caller) {
          const std::string owner = owner_of(caller);
          const auto paging = paging_of(request, 20, 100);
          if (!paging) return to_response(paging.error());
          const auto found = responses_.store().find(owner, request.param("id"));
          if (!found) return answer_of(Result<Json>(std::unexpected(found.error())));
          Json::Array items;
          if (!found->previous_id.empty())
            items = responses_.store().history(owner, found->previous_id).value_or(Json::Array());
          items.insert(items.end(), found->input.begin(), found->input.end());
          if (!wants_outputs(request)) hide_outputs(items);
          return http::Response::json(200, page_of(std::move(items), *paging));
        });
  route(gateway, "POST", "/v1/responses/{id}/cancel",
        [this](const http::Request& request, const Caller& caller) {
          return background_.cancel(owner_of(caller), request.param("id"));
        });
}

http::Response OpenAiApi::stored_response(const http::Request& request, const Caller& caller) {
  auto found = responses_.store().find(owner_of(caller), request.param("id"));
  if (!found) return answer_of(Result<Json>(std::unexpected(found.error())));
  if (Json* output = found->response.find("output"); output != nullptr && !wants_outputs(request))
    hide_outputs(output->items());
  return http::Response::json(200, found->response);
}

void OpenAiApi::follow(const http::Request& request, const Caller& caller, const http::ResponseWriterPtr& writer) {
  const std::string given = request.query_value("starting_after").value_or("-1");
  const auto after = parse_int(given);
  std::expected<void, ApiError> begun;
  if (!after) {
    begun = wrong("starting_after", fmt::format("Invalid 'starting_after': expected an integer, but got '{}'.", given),
                  "invalid_type");
  } else {
    begun = background_.follow(owner_of(caller), request.param("id"), *after, request, writer);
  }
  if (!begun) writer->respond(with_id(request, to_response(begun.error())));
}

void OpenAiApi::add_files(Gateway& gateway) {
  gateway.allow_large_bodies("POST", "/v1/files", http::kUploadBytesMax);
  route(gateway, "POST", "/v1/files", [this](const http::Request& request, const Caller& caller) {
    const auto file = file_of(request);
    return answer_of(file ? files_->add(owner_of(caller), *file)
                          : Result<Json>(std::unexpected(file.error())));
  });
  route(gateway, "GET", "/v1/files", [this](const http::Request& request, const Caller& caller) {
    const auto paging = paging_of(request, 10'000, 10'000);
    if (!paging) return to_response(paging.error());
    return answer_of(files_->list(owner_of(caller), {.after = paging->after,
                                                     .purpose = request.query_value("purpose").value_or(""),
                                                     .limit = paging->limit,
                                                     .ascending = paging->ascending}));
  });
  route(gateway, "GET", "/v1/files/{id}", [this](const http::Request& request, const Caller& caller) {
    return answer_of(files_->find(owner_of(caller), request.param("id")));
  });
  route(gateway, "DELETE", "/v1/files/{id}", [this](const http::Request& request, const Caller& caller) {
    const std::string id = request.param("id");
    const auto removed = files_->remove(owner_of(caller), id);
    return answer_of(removed ? Result<Json>(Json::object({{"id", id}, {"object", "file"}, {"deleted", true}}))
                             : std::unexpected(removed.error()));
  });
  route(gateway, "GET", "/v1/files/{id}/content", [this](const http::Request& request, const Caller& caller) {
    auto content = files_->content(owner_of(caller), request.param("id"));
    if (!content) return answer_of(Result<Json>(std::unexpected(content.error())));
    return http::Response{
        .status = 200, .headers = {{"content-type", "application/octet-stream"}}, .body_file = *std::move(content)};
  });
}

void OpenAiApi::add_batches(Gateway& gateway) {
  route(gateway, "POST", "/v1/batches", [this](const http::Request& request, const Caller& caller) {
    const auto body = Json::parse(request.body);
    if (!body || !body->is_object()) return to_response({.message = "the body must be a JSON object"});
    return answer_of(batches_.create(caller, *body));
  });
  route(gateway, "GET", "/v1/batches", [this](const http::Request& request, const Caller& caller) {
    const auto paging = paging_of(request, 20, 100);
    if (!paging) return to_response(paging.error());
    return answer_of(batches_.list(owner_of(caller), paging->after, paging->limit));
  });
  route(gateway, "GET", "/v1/batches/{id}", [this](const http::Request& request, const Caller& caller) {
    return answer_of(batches_.find(owner_of(caller), request.param("id")));
  });
  route(gateway, "POST", "/v1/batches/{id}/cancel",
        [this](const http::Request& request, const Caller& caller) {
          return answer_of(batches_.cancel(owner_of(caller), request.param("id")));
        });
}

}  // namespace capstan::gateway::openai
