// What form a request wants its answer in: response_format and the fields that vLLM and llama.cpp have for
// it.
//
//   response_format   {"type": "text" | "json_object" | "json_schema", "json_schema": {"name", "schema", …}}
//   structured_outputs {"json" | "regex" | "choice" | "grammar" | "json_object": …}           (vLLM)
//   guided_json, guided_regex, guided_choice, guided_grammar (vLLM, older); grammar, json_schema (llama.cpp)
// One of them at most. Private to this folder.  Threads: pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/server/field_reader.h"

namespace capstan::engine {

inline constexpr std::size_t kChoiceTextsMax = 1'024;

struct AnswerForm {
  enum class Kind { kText, kJsonObject, kJsonSchema, kRegex, kChoice, kGrammar };
  Kind kind = Kind::kText;
  Json schema = {};                         // of kJsonSchema
  std::string text = {};                    // of kRegex, kGrammar
  std::vector<std::string> choices = {};    // of kChoice
  std::string name = {}, description = {};  // of a json_schema, to be told to the model
  std::string param = {};                   // the field that it came from

  bool is_json() const { return kind == Kind::kJsonObject || kind == Kind::kJsonSchema; }
};

AnswerForm read_answer_form(FieldReader& body, std::optional<ApiError>& error);

}  // namespace capstan::engine
