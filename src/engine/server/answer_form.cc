// Each field is read to a form; a second one is refused.
#include "engine/server/answer_form.h"

namespace capstan::engine {
namespace {

using Kind = AnswerForm::Kind;

// A schema given as an object, or as its text.
Json read_schema(FieldReader& fields, std::string_view key) {
  const Json* value = fields.find(key);
  if (value == nullptr) return nullptr;
  if (value->is_object() || value->is_bool()) return *value;
  if (value->is_string()) {
    auto parsed = Json::parse(value->as_string());
    if (parsed && parsed->is_object()) return *std::move(parsed);
    fields.fail_with(ApiError::bad_value(fields.path(key),
                                         fmt::format("Invalid '{}': no JSON object.", fields.path(key))));
  } else {
    fields.fail_with(ApiError::wrong_type(fields.path(key), "an object", *value));
  }
  return nullptr;
}

std::vector<std::string> read_choices(FieldReader& fields, std::string_view key) {
  std::vector<std::string> texts;
  const Json* list = fields.array(key, kChoiceTextsMax);
  if (list == nullptr) return texts;
  for (const Json& item : list->items()) {
    if (!item.is_string()) {
      fields.fail_with(ApiError::wrong_type(fields.path(key), "an array of strings", item));
      break;
    }
    texts.push_back(item.as_string());
  }
  if (texts.empty())
    fields.fail_with(ApiError::bad_value(fields.path(key),
                                         fmt::format("Invalid '{}': it needs a choice.", fields.path(key))));
  return texts;
}

AnswerForm read_response_format(const Json& format, std::optional<ApiError>& error) {
  AnswerForm form{.param = "response_format"};
  FieldReader fields(format, "response_format", error);
  const std::string type = fields.choice("type", {"text", "json_object", "json_schema"}).value_or("");
  if (!error && type.empty()) fields.fail_with(ApiError::missing("response_format.type"));
  if (type == "json_object") {
    form.kind = Kind::kJsonObject;
    if (fields.find("schema") == nullptr) return form;
    form.kind = Kind::kJsonSchema;  // as llama.cpp reads it
    form.schema = read_schema(fields, "schema");
  } else if (type == "json_schema") {
    form.kind = Kind::kJsonSchema;
    const Json* wrapper = fields.object("json_schema");
    if (wrapper == nullptr) {
      fields.fail_with(ApiError::missing("response_format.json_schema"));
      return form;
    }
    FieldReader inner(*wrapper, "response_format.json_schema", error);
    form.name = inner.required_string("name");
    inner.require_plain_name("name", form.name);
    form.description = inner.string("description").value_or("");
    if (inner.find("schema") == nullptr)
      inner.fail_with(ApiError::missing("response_format.json_schema.schema"));
    form.schema = read_schema(inner, "schema");
  }
  return form;
}

// The members of structured_outputs, and the same under their older names.
struct Field {
  std::string_view key;
  Kind kind;
};

std::optional<AnswerForm> read_field(FieldReader& fields, const Field& field) {
  if (fields.find(field.key) == nullptr) return std::nullopt;
  AnswerForm form{.kind = field.kind, .name = "answer", .param = fields.path(field.key)};
  switch (field.kind) {
    case Kind::kJsonSchema:
      form.schema = read_schema(fields, field.key);
      break;
    case Kind::kChoice:
      form.choices = read_choices(fields, field.key);
      break;
    case Kind::kRegex:
    case Kind::kGrammar:
      form.text = fields.string(field.key).value_or("");
      break;
    case Kind::kJsonObject:
      if (!fields.boolean(field.key).value_or(false)) return std::nullopt;
      break;
    case Kind::kText:
      break;
  }
  return form;
}

}  // namespace

AnswerForm read_answer_form(FieldReader& body, std::optional<ApiError>& error) {
  std::vector<AnswerForm> forms;
  if (const Json* format = body.object("response_format")) {
    AnswerForm form = read_response_format(*format, error);
    if (form.kind != Kind::kText) forms.push_back(std::move(form));
  }
  static constexpr Field kFields[] = {{"grammar", Kind::kGrammar},        {"json_schema", Kind::kJsonSchema},
                                      {"guided_json", Kind::kJsonSchema}, {"guided_regex", Kind::kRegex},
                                      {"guided_choice", Kind::kChoice},   {"guided_grammar", Kind::kGrammar}};
  for (const Field& field : kFields) {
    if (auto form = read_field(body, field)) forms.push_back(*std::move(form));
  }
  if (const Json* outputs = body.object("structured_outputs")) {
    FieldReader fields(*outputs, "structured_outputs", error);
    static constexpr Field kMembers[] = {{"json", Kind::kJsonSchema},
                                         {"regex", Kind::kRegex},
                                         {"choice", Kind::kChoice},
                                         {"grammar", Kind::kGrammar},
                                         {"json_object", Kind::kJsonObject}};
    if (fields.find("structural_tag") != nullptr)
      fields.fail_with(
          ApiError::unsupported("structured_outputs.structural_tag", "'structural_tag' is not supported."));
    for (const Field& field : kMembers) {
      if (auto form = read_field(fields, field)) forms.push_back(*std::move(form));
    }
  }
  if (forms.size() > 1) {
    body.fail_with(ApiError::bad_value(
        forms[1].param, fmt::format("'{}' and '{}' both say what form the answer has; give one.",
                                    forms[0].param, forms[1].param)));
  }
  return forms.empty() ? AnswerForm{} : std::move(forms.front());
}

}  // namespace capstan::engine
