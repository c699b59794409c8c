#include "gateway/openai/responses_error.h"

namespace capstan::gateway::openai {
namespace {

struct Term {
  std::string_view chat, responses;
};
// Longer names first.
constexpr Term kTerms[] = {{"response_format.json_schema", "text.format"},
                           {"response_format", "text.format"},
                           {"max_completion_tokens", "max_output_tokens"},
                           {"reasoning_effort", "reasoning.effort"},
                           {"verbosity", "text.verbosity"},
                           {"messages", "input"}};

void replace(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

// Positions in the list of messages are not those of the input's items.
std::string param_of(const std::string& param) {
  if (param.starts_with("messages")) return "input";
  for (const auto& [chat, responses] : kTerms) {
    if (param.starts_with(chat)) return std::string(responses) + param.substr(chat.size());
  }
  std::string out = param;
  if (param.starts_with("tools[")) replace(out, "].function", "]");
  return out;
}

}  // namespace

OpenAiError in_responses_terms(OpenAiError error) {
  const std::string param = param_of(error.param);
  if (!error.param.empty()) replace(error.message, fmt::format("'{}'", error.param), fmt::format("'{}'", param));
  error.param = param;
  return error;
}

http::Response in_responses_terms(http::Response answer) {
  auto body = Json::parse(answer.body);
  Json* error = body ? body->find("error") : nullptr;
  if (error == nullptr || !error->is_object()) return answer;
  const OpenAiError told = in_responses_terms({.message = error->get_string("message").value_or(""),
                                               .param = error->get_string("param").value_or("")});
  (*error)["message"] = told.message;
  if (!told.param.empty()) (*error)["param"] = told.param;
  answer.body = body->dump();
  return answer;
}

}  // namespace capstan::gateway::openai
