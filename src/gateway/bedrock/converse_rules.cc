// One walk; what the turn before has used is remembered until its results are there.
#include "gateway/bedrock/converse_rules.h"

#include <algorithm>
#include <set>

#include "base/text.h"

namespace capstan::gateway::bedrock {
namespace {

class Conversation {
 public:
  Result<void> add(const Json& message, std::size_t index) {
    const std::string role = *message.get_string("role");
    const Json::Array& blocks = message.find("content")->items();
    if (blocks.empty())
      return fail(Code::kInvalid,
                  "The content field in the Message object at messages.{} is empty. Add a ContentBlock object to the content "
                  "field and try again.",
                  index);
    CAPSTAN_CHECK(check_text(blocks, index));
    if (role == "system") return {};
    if (last_role_.empty() && role != "user")
      return fail(Code::kInvalid,
                  "A conversation must start with a user message. Try again with a conversation that starts "
                  "with a user message.");
    if (role == last_role_)
      return fail(Code::kInvalid,
                  "A conversation must alternate between user and assistant roles. Make sure the conversation alternates between "
                  "user and assistant roles and try again.");
    last_role_ = role;
    return check_tools(blocks, index);
  }

  Result<void> finish(std::size_t count) const { return expect_answered({}, count); }
  bool uses_tools() const { return uses_tools_; }

 private:
  static Result<void> check_text(const Json::Array& blocks, std::size_t index) {
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      const auto text = blocks[i].get_string("text");
      if (text && trim(*text).empty())
        return fail(Code::kInvalid,
                    "The text field in the ContentBlock object at messages.{}.content.{} is blank. Add text "
                    "to the text field, and "
                    "try again.",
                    index, i);
    }
    return {};
  }

  Result<void> check_tools(const Json::Array& blocks, std::size_t index) {
    std::set<std::string> used, answered;
    std::size_t results = 0;
    for (const Json& block : blocks) {
      if (const Json* use = block.find("toolUse")) used.insert(use->get_string("toolUseId").value_or(""));
      if (const Json* result = block.find("toolResult")) {
        answered.insert(result->get_string("toolUseId").value_or(""));
        ++results;
      }
    }
    uses_tools_ = uses_tools_ || !used.empty() || results > 0;
    if (results > used_.size())
      return fail(Code::kInvalid,
                  "The number of toolResult blocks at messages.{}.content exceeds the number of toolUse blocks of previous turn.",
                  index);
    CAPSTAN_CHECK(expect_answered(answered, index));
    used_ = std::move(used);
    return {};
  }

  Result<void> expect_answered(const std::set<std::string>& answered, std::size_t index) const {
    std::string missing;
    for (const std::string& id : used_) {
      if (!answered.contains(id)) missing += (missing.empty() ? "" : ", ") + id;
    }
    if (missing.empty()) return {};
    return fail(Code::kInvalid, "Expected toolResult blocks at messages.{}.content for the following Ids: {}", index, missing);
  }

  std::string last_role_;
  std::set<std::string> used_;  // ids of the turn before
  bool uses_tools_ = false;
};

}  // namespace

Result<void> check_conversation(const Json& body) {
  const Json* messages = body.find("messages");
  if (messages == nullptr || messages->size() == 0) return fail(Code::kInvalid, "messages must hold at least one message");
  Conversation conversation;
  for (std::size_t i = 0; i < messages->size(); ++i) CAPSTAN_CHECK(conversation.add(messages->items()[i], i));
  CAPSTAN_CHECK(conversation.finish(messages->size()));
  const Json* tools = body.find("toolConfig");
  if (conversation.uses_tools() && (tools == nullptr || tools->is_null()))
    return fail(Code::kInvalid, "The toolConfig field must be defined when using toolUse and toolResult content blocks.");
  return {};
}

}  // namespace capstan::gateway::bedrock
