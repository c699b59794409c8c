// model: the catalogue.
#include <cstdio>
#include <cstdlib>

#include "base/text.h"
#include "cli/accounts_commands.h"
#include "cli/commands.h"
#include "cli/format.h"
#include "cli/table.h"

namespace capstan::cli {
namespace {

constexpr int kMicroDigits = 6;

std::string price_of(const Json& model, std::string_view key) {
  const std::int64_t micro = number_of(model, key);
  std::string text = fmt::format("{}.{:06d}", micro / 1'000'000, micro % 1'000'000);
  const std::size_t least = text.find('.') + 3;
  while (text.size() > least && text.back() == '0') text.pop_back();
  return text;
}

std::string or_dash(std::string text) { return text.empty() ? "-" : text; }

// The key of a model's source; it stands in no argument, where others could read it.
Result<std::string> upstream_key(const ModelOptions& options) {
  std::string key;
  if (!options.key_env.empty()) {
    const char* value = std::getenv(options.key_env.c_str());
    if (value == nullptr) return fail(Code::kInvalid, "the variable {} is not set", options.key_env);
    key = value;
  } else {
    CAPSTAN_TRY(key, read_input(options.key_file));
  }
  return std::string(trim(key));
}

}  // namespace

int model_list(const Globals& globals) {
  return show(globals, request(globals, "/api/v1/models"), [](const Json& json) {
    Table table({"MODEL", "CONTEXT", "$ IN", "$ CACHED", "$ OUT", "FORMAT", "LICENCE", "SOURCE"});
    for (const Json& one : list_of(json, "models")) {
      const std::int64_t context = number_of(one, "context_length");
      table.add({text_of(one, "name"), context == 0 ? "-" : std::to_string(context), price_of(one, "price_input"),
                 price_of(one, "price_cached"), price_of(one, "price_output"), or_dash(text_of(one, "format")),
                 or_dash(text_of(one, "licence")), or_dash(text_of(one, "source"))});
    }
    fmt::print("{}", table.text());
    for (const Json& alias : list_of(json, "aliases")) {
      std::string targets;
      for (const Json& target : list_of(alias, "targets"))
        targets += fmt::format("{}{}={}", targets.empty() ? "" : ", ", text_of(target, "model"), number_of(target, "weight"));
      fmt::print("alias {} -> {}\n", text_of(alias, "name"), targets);
    }
  });
}

int model_show(const Globals& globals, const std::string& name) {
  const auto answer = request(globals, "/api/v1/models");
  if (!answer) return report(answer.error());
  for (const Json& one : list_of(*answer, "models")) {
    if (text_of(one, "name") != name) continue;
    return show(globals, one, [](const Json& model) {
      for (const auto& [key, value] : model.members()) {
        if (key == "card" || key == "created_ms" || key.starts_with("price_")) continue;
        fmt::print("{:<22}{}\n", key, value.is_string() ? value.as_string() : value.dump());
      }
      fmt::print("{:<22}{} in, {} cached, {} out\n", "$ per million tokens", price_of(model, "price_input"),
                 price_of(model, "price_cached"), price_of(model, "price_output"));
      if (const std::string card = text_of(model, "card"); !card.empty()) fmt::print("\n{}\n", card);
    });
  }
  return report(Error{Code::kNotFound, fmt::format("there is no model '{}'; `capstan model` lists them", name), {}});
}

int model_add(const Globals& globals, const ModelOptions& options) {
  Json body = Json::object({{"name", options.name}});
  for (const auto& [key, value] : {std::pair{"source", &options.source},
                                   {"format", &options.format},
                                   {"licence", &options.licence}}) {
    if (!value->empty()) body[key] = *value;
  }
  if (options.context >= 0) body["context_length"] = options.context;
  if (options.requests_per_replica >= 0) body["requests_per_replica"] = options.requests_per_replica;
  for (const std::string& modality : options.modalities) body["modalities"].push_back(modality);
  for (const auto& [key, value] : {std::pair{"price_input", &options.price_input},
                                   {"price_cached", &options.price_cached},
                                   {"price_output", &options.price_output}}) {
    if (value->empty()) continue;
    const auto micro = parse_decimal(*value, kMicroDigits);
    if (!micro) return report(micro.error());
    body[key] = *micro;
  }
  if (!options.key_file.empty() || !options.key_env.empty()) {
    const auto key = upstream_key(options);
    if (!key) return report(key.error());
    body["key"] = *key;
  }
  if (!options.card_file.empty()) {
    const auto card = read_input(options.card_file);
    if (!card) return report(card.error());
    body["card"] = *card;
  }
  return show(globals, request(globals, "/api/v1/models", body),
              [&](const Json&) { fmt::print("model {} is in the catalogue\n", options.name); });
}

int model_remove(const Globals& globals, const std::string& name) {
  return show(globals, request(globals, "/api/v1/models/remove", Json::object({{"name", name}})),
              [&](const Json&) { fmt::print("model {} removed\n", name); });
}

int model_alias(const Globals& globals, const AliasOptions& options) {
  Json body = Json::object({{"name", options.name}, {"targets", Json::array()}});
  for (const std::string& target : options.targets) body["targets"].push_back(target);
  return show(globals, request(globals, "/api/v1/aliases", body), [&](const Json&) {
    fmt::print("alias {} {}\n", options.name, options.targets.empty() ? "removed" : "set");
  });
}

}  // namespace capstan::cli
