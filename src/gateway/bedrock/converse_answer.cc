#include "gateway/bedrock/converse_answer.h"

#include <algorithm>

#include "base/text.h"

namespace capstan::gateway::bedrock {
namespace {

// The value that a JSON pointer (RFC 6901) names; nullptr if there is none.
const Json* at_pointer(const Json& root, std::string_view pointer) {
  const Json* value = &root;
  for (const std::string_view raw : split(pointer.substr(1), '/')) {
    std::string key(raw);
    for (std::size_t i = key.find('~'); i != std::string::npos; i = key.find('~', i + 1)) {
      if (key.compare(i, 2, "~1") == 0) key.replace(i, 2, "/");
      if (key.compare(i, 2, "~0") == 0) key.replace(i, 2, "~");
    }
    if (value->is_array()) {
      const auto index = parse_int(key);
      if (!index || *index < 0 || *index >= static_cast<std::int64_t>(value->size())) return nullptr;
      value = &value->items()[static_cast<std::size_t>(*index)];
    } else {
      value = value->find(key);
      if (value == nullptr) return nullptr;
    }
  }
  return value;
}

Json tier_json(const std::string& type) { return Json::object({{"type", type}}); }

}  // namespace

void ConverseAnswer::close(std::vector<ConverseEvent>& events) {
  if (!open_) return;
  open_ = false;
  events.push_back({"contentBlockStop", Json::object({{"contentBlockIndex", blocks_.size() - 1}})});
}

void ConverseAnswer::open(Kind kind, const openai::CallDelta* call, std::vector<ConverseEvent>& events) {
  close(events);
  blocks_.push_back({.kind = kind});
  open_ = true;
  if (call == nullptr) return;
  Block& block = blocks_.back();
  block.id = call->id;
  block.name = call->name;
  block.call_index = call->index;
  Json use = Json::object({{"toolUseId", call->id}, {"name", call->name}});
  events.push_back(
      {"contentBlockStart", Json::object({{"contentBlockIndex", blocks_.size() - 1},
                                          {"start", Json::object({{"toolUse", std::move(use)}})}})});
}

void ConverseAnswer::append(Kind kind, const std::string& text, std::vector<ConverseEvent>& events) {
  if (text.empty()) return;
  blocks_.back().text += text;
  Json delta;
  if (kind == Kind::kText) {
    delta["text"] = text;
  } else if (kind == Kind::kReasoning) {
    delta["reasoningContent"]["text"] = text;
  } else {
    delta["toolUse"]["input"] = text;
  }
  events.push_back({"contentBlockDelta",
                    Json::object({{"contentBlockIndex", blocks_.size() - 1}, {"delta", std::move(delta)}})});
}

std::vector<ConverseEvent> ConverseAnswer::push(const openai::ChatDelta& delta) {
  std::vector<ConverseEvent> events;
  if (!started_) events.push_back({"messageStart", Json::object({{"role", "assistant"}})});
  started_ = true;
  const auto say = [&](Kind kind, const std::string& text) {
    if (text.empty()) return;
    if (!open_ || blocks_.back().kind != kind) open(kind, nullptr, events);
    append(kind, text, events);
  };
  say(Kind::kReasoning, delta.reasoning);
  say(Kind::kText, delta.content);
  say(Kind::kText, delta.refusal);
  for (const openai::CallDelta& call : delta.calls) {
    const bool goes_on =
        open_ && blocks_.back().kind == Kind::kTool && blocks_.back().call_index == call.index;
    if (!goes_on) open(Kind::kTool, &call, events);
    append(Kind::kTool, call.arguments, events);
  }
  if (!delta.finish_reason.empty()) finish_reason_ = delta.finish_reason;
  if (!delta.stop_sequence.empty()) stop_sequence_ = delta.stop_sequence;
  if (!delta.usage.is_null()) usage_ = delta.usage;
  return events;
}

std::string ConverseAnswer::stop_reason() const {
  const auto is_broken = [](const Block& block) {
    return block.kind == Kind::kTool && !block.text.empty() && !Json::parse(block.text).has_value();
  };
  if (finish_reason_ == "length") return "max_tokens";
  if (std::ranges::any_of(blocks_, is_broken)) return "malformed_tool_use";
  if (finish_reason_ == "tool_calls" || finish_reason_ == "function_call") return "tool_use";
  if (finish_reason_ == "content_filter") return "content_filtered";
  return stop_sequence_.empty() ? "end_turn" : "stop_sequence";
}

Json ConverseAnswer::usage() const {
  const openai::ChatUsage told = openai::read_usage(usage_);
  return Json::object(
      {{"inputTokens", std::max<std::int64_t>(0, told.input - told.cached - told.cache_write)},
       {"outputTokens", told.output},
       {"totalTokens", told.input + told.output},
       {"cacheReadInputTokens", told.cached},
       {"cacheWriteInputTokens", told.cache_write}});
}

std::vector<ConverseEvent> ConverseAnswer::finish(std::int64_t latency_ms) {
  std::vector<ConverseEvent> events;
  close(events);
  events.push_back({"messageStop", Json::object({{"stopReason", stop_reason()}})});
  Json metadata = Json::object({{"usage", usage()}, {"metrics", Json::object({{"latencyMs", latency_ms}})}});
  if (!call_.service_tier.empty()) metadata["serviceTier"] = tier_json(call_.service_tier);
  if (!call_.performance_config.is_null()) metadata["performanceConfig"] = call_.performance_config;
  events.push_back({"metadata", std::move(metadata)});
  return events;
}

Json ConverseAnswer::whole(std::int64_t latency_ms, const Json& completion) {
  Json content = Json::array();
  for (const Block& block : blocks_) {
    Json json;
    if (block.kind == Kind::kReasoning) {
      json["reasoningContent"]["reasoningText"]["text"] = block.text;
    } else if (block.kind == Kind::kText) {
      json["text"] = block.text;
    } else {
      auto input = Json::parse(block.text.empty() ? "{}" : block.text);
      json["toolUse"] = Json::object({{"toolUseId", block.id},
                                      {"name", block.name},
                                      {"input", input ? *std::move(input) : Json(block.text)}});
    }
    content.push_back(std::move(json));
  }
  Json out = Json::object(
      {{"output",
        Json::object({{"message", Json::object({{"role", "assistant"}, {"content", std::move(content)}})}})},
       {"stopReason", stop_reason()},
       {"usage", usage()},
       {"metrics", Json::object({{"latencyMs", latency_ms}})}});
  if (!call_.service_tier.empty()) out["serviceTier"] = tier_json(call_.service_tier);
  if (!call_.performance_config.is_null()) out["performanceConfig"] = call_.performance_config;
  for (const std::string& path : call_.response_field_paths) {
    const Json* value = at_pointer(completion, path);
    if (value == nullptr) continue;
    const auto last = split(path, '/').back();
    out["additionalModelResponseFields"][last] = *value;
  }
  return out;
}

}  // namespace capstan::gateway::bedrock
