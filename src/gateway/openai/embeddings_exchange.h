// POST /v1/embeddings: relayed to a replica that gives embeddings, in the encoding that the client asked for.
//
// OpenAI's clients ask for base64 (float32, little-endian) unless told otherwise; not every server knows it,
// so vectors are encoded or decoded here where the replica's answer is the other form. A replica without
// embeddings gives 400 with the model's name. Threads: as an exchange's. Private to openai/.
#pragma once

#include <string>

#include "gateway/openai/whole_exchange.h"

namespace capstan::gateway::openai {

// Makes each item's `embedding` base64 text, or a list of numbers. False if an item is neither.
bool encode_embeddings(Json& answer, bool base64);

class EmbeddingsExchange final : public WholeExchange {
 public:
  EmbeddingsExchange() : WholeExchange("the replica streamed its embeddings") {}
  std::expected<UpstreamCall, http::Response> begin(http::Request& request, const Caller& caller) override;
  void on_answer(http::Response answer, const Usage* usage, Reply& reply) override;

 private:
  std::string model_;
  bool base64_ = false;
};

}  // namespace capstan::gateway::openai
