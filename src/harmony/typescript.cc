// One function per kind of schema; each returns text. Comments stand above a property or behind its type, and
// defaults of enums stand without quotes: these oddities are what the models were trained on.
#include "harmony/typescript.h"

#include <algorithm>

#include "base/text.h"

namespace capstan::harmony {
namespace {

using Text = std::string;

bool is_enum(const Json& schema) {
  const Json* values = schema.find("enum");
  return values != nullptr && values->is_array() && values->size() > 0;
}

const Json* list_of(const Json& schema, std::string_view key) {
  const Json* list = schema.find(key);
  return list != nullptr && list->is_array() && list->size() > 0 ? list : nullptr;
}

// "default: 20", `default: "text"`, or "" without a default. `quote` is false only for enums of properties.
Text default_text(const Json& schema, bool quote_enums) {
  const Json* value = schema.find("default");
  if (value == nullptr) return {};
  if (value->is_string() && is_enum(schema) && !quote_enums) return "default: " + value->as_string();
  if (value->is_string() && !is_enum(schema)) return "default: \"" + value->as_string() + "\"";
  return "default: " + value->dump();
}

Text nullable_type(const Json& schema, const Text& indent) {
  Text type = typescript_type(schema, indent);
  if (schema.get_bool("nullable").value_or(false) && type.find("null") == Text::npos) type += " | null";
  return type;
}

Text comment(const Text& indent, std::string_view text) { return indent + "// " + Text(text) + "\n"; }

// A bare oneOf: every variant on its own line, with its description and default behind it.
Text one_of_type(const Json& variants, const Text& indent) {
  Text out;
  for (const Json& variant : variants.items()) {
    out += "\n" + indent + " | " + nullable_type(variant, indent + "   ");
    Text trailing = variant.get_string("description").value_or("");
    const Text value = default_text(variant, true);
    if (!value.empty()) trailing += (trailing.empty() ? "" : " ") + value;
    if (!trailing.empty()) out += " // " + trailing;
  }
  return out;
}

// A property whose value is a oneOf: description and default above, variants below, a comma on its own line.
Text one_of_property(const Text& name, const Json& property, const Json& variants, bool required,
                     const Text& indent) {
  const Text description = property.get_string("description").value_or("");
  const bool same_as_first =
      !description.empty() && variants.items()[0].get_string("description").value_or("") == description;
  const bool described_above = !description.empty() && !same_as_first;
  Text out;
  if (described_above) out += comment(indent, description);
  if (const Text value = default_text(property, false); !value.empty()) out += comment(indent, value);
  out += indent + name + (required ? "" : "?") + ":\n";
  bool first = true;
  for (const Json& variant : variants.items()) {
    out += indent + " | " + nullable_type(variant, indent + "   ");
    Text trailing;
    if (!(first && described_above)) {
      const Text own = variant.get_string("description").value_or("");
      if (own != description) trailing = own;
    }
    const Text value = default_text(variant, false);
    if (!value.empty()) trailing += (trailing.empty() ? "" : " ") + value;
    out += (trailing.empty() ? "" : " // " + trailing) + "\n";
    first = false;
  }
  return out + indent + ",\n";
}

Text comments_above(const Json& property, bool with_description, const Text& indent) {
  Text out;
  if (const auto title = property.get_string("title")) out += comment(indent, *title) + indent + "//\n";
  const auto description = property.get_string("description");
  if (with_description && description) out += comment(indent, *description);
  if (const Json* examples = list_of(property, "examples")) {
    out += comment(indent, "Examples:");
    for (const Json& example : examples->items()) {
      if (example.is_string()) out += comment(indent, "- \"" + example.as_string() + "\"");
    }
  }
  return out;
}

bool is_required(const Json& schema, std::string_view name) {
  const Json* required = schema.find("required");
  return required != nullptr && required->is_array() &&
         std::ranges::any_of(required->items(),
                             [&](const Json& item) { return item.is_string() && item.as_string() == name; });
}

Text object_type(const Json& schema, const Text& indent) {
  Text out;
  if (const auto description = schema.get_string("description")) out += comment(indent, *description);
  out += "{\n";
  const Json* properties = schema.find("properties");
  if (properties != nullptr && properties->is_object()) {
    for (const auto& [name, property] : properties->members()) {
      const bool required = is_required(schema, name);
      const Json* variants = list_of(property, "oneOf");
      out += comments_above(property, variants == nullptr, indent);
      if (variants != nullptr) {
        out += one_of_property(name, property, *variants, required, indent);
        continue;
      }
      out += indent + name + (required ? ": " : "?: ") + nullable_type(property, indent + "    ") + ",";
      if (const Text value = default_text(property, false); !value.empty()) out += " // " + value;
      out += "\n";
    }
  }
  return out + indent + "}";
}

Text joined(const Json& items, const auto& text_of) {
  Text out;
  for (const Json& item : items.items()) {
    const Text text = text_of(item);
    if (text.empty()) continue;
    out += (out.empty() ? "" : " | ") + text;
  }
  return out;
}

Text plain_type(const Text& name, const Json& schema, const Text& indent) {
  if (name == "object") return object_type(schema, indent);
  if (name == "string") {
    const Json* values = list_of(schema, "enum");
    const Text text = values == nullptr ? Text() : joined(*values, [](const Json& value) {
      return value.is_string() ? "\"" + value.as_string() + "\"" : Text();
    });
    return text.empty() ? "string" : text;
  }
  if (name == "number" || name == "integer") return "number";
  if (name == "boolean" || name == "null") return name;
  if (name == "array") {
    const Json* items = schema.find("items");
    return items == nullptr ? "Array<any>" : typescript_type(*items, indent) + "[]";
  }
  return "any";
}

}  // namespace

std::string typescript_type(const Json& schema, const std::string& indent) {
  if (const Json* variants = list_of(schema, "oneOf")) return one_of_type(*variants, indent);
  if (const Json* types = list_of(schema, "type")) {
    const Text text = joined(*types, [](const Json& type) {
      return !type.is_string() ? Text() : type.as_string() == "integer" ? Text("number") : type.as_string();
    });
    if (!text.empty()) return text;
  }
  if (const auto name = schema.get_string("type")) return plain_type(*name, schema, indent);
  if (const Json* variants = list_of(schema, "anyOf")) {
    return joined(*variants, [&](const Json& variant) { return typescript_type(variant, indent); });
  }
  if (const Json* value = schema.find("const"); value != nullptr && !value->is_object()) return value->dump();
  return "any";
}

std::string typescript_namespace(std::string_view name, std::span<const FunctionTool> tools) {
  Text out = fmt::format("## {}\n\nnamespace {} {{\n\n", name, name);
  for (const FunctionTool& tool : tools) {
    if (!tool.description.empty()) {
      for (const std::string_view line : split(trim(tool.description), '\n')) out += comment("", line);
    }
    out += "type " + tool.name + " = ";
    const Json* properties = tool.parameters.find("properties");
    // An empty object of arguments is written as no argument, like an absent one.
    const bool no_argument =
        tool.parameters.is_null() ||
        (tool.parameters.get_string("type") == "object" && !tool.parameters.contains("description") &&
         (properties == nullptr || properties->size() == 0));
    out += no_argument ? "() => any;\n\n" : "(_: " + typescript_type(tool.parameters, "") + ") => any;\n\n";
  }
  return out + fmt::format("}} // namespace {}", name);
}

}  // namespace capstan::harmony
