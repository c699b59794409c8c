// OpenAI's API on the gateway beyond what is relayed as it is: responses, stored chats, files, batches, embeddings.
//
//   CAPSTAN_TRY(auto api, OpenAiApi::make(gateway, database, {.files = data / "files", .seal_key = key}));
//   gateway.mount(router);  …  api->start();   // batches go on
//
// The tables are kOpenAiTables. Threads: as the gateway's. The gateway and the database outlive it, and no
// request comes after it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "gateway/openai/batches.h"
#include "gateway/openai/chat_store.h"
#include "gateway/openai/code_requests.h"
#include "gateway/openai/container_host.h"
#include "gateway/openai/file_store.h"
#include "gateway/openai/responses_state.h"

namespace capstan::gateway::openai {

struct OpenAiOptions {
  std::filesystem::path files;  // a directory of its own
  std::string seal_key;         // of store::load_or_make_key
  CodeRunner* code = nullptr;   // of the tool code_interpreter, which is refused without it; outlives the API
  ContainerHost* containers = nullptr;  // of /v1/containers; the same
};

class OpenAiApi {
 public:
  static Result<std::unique_ptr<OpenAiApi>> make(Gateway& gateway, store::Database& database,
                                                 OpenAiOptions options);
  void start();

 private:
  OpenAiApi(Gateway& gateway, store::Database& database, OpenAiOptions options, std::unique_ptr<FileStore> files);
  void add_responses(Gateway& gateway);
  void add_files(Gateway& gateway);
  http::Response stored_response(const http::Request& request, const Caller& caller);
  void follow(const http::Request& request, const Caller& caller, const http::ResponseWriterPtr& writer);
  void add_batches(Gateway& gateway);

  std::unique_ptr<FileStore> files_;
  ChatStore chats_;
  ResponsesState responses_;
  BackgroundResponses background_;
  CodeRequests code_;
  Batches batches_;
};

}  // namespace capstan::gateway::openai
