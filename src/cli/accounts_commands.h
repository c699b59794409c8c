// One function per command about who may infer, how much, and what it cost; each returns the exit code. Private
// to cli/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cli/cli.h"

namespace capstan::cli {

int org_list(const Globals& globals);
int org_add(const Globals& globals, const std::string& name);
int org_remove(const Globals& globals, const std::string& name);

struct ProjectOptions {
  std::string project;  // "acme/web"
  std::int64_t weight = 1;
};
int project_list(const Globals& globals);
int project_add(const Globals& globals, const ProjectOptions& options);
int project_remove(const Globals& globals, const std::string& project);

struct KeyOptions {
  std::string project = "default/default";
  std::string name;
  std::string role = "member";
  std::vector<std::string> scopes;
  std::vector<std::string> models;
  std::string tier = "default";
  std::string expires;
  bool signing = false;
};
int key_list(const Globals& globals);
int key_add(const Globals& globals, const KeyOptions& options);  // prints the key, once
int key_revoke(const Globals& globals, const std::string& key);

struct LimitOptions {
  std::string subject;  // "" everyone, "acme", "acme/web", "acme/web/ci"
  std::string model;
  std::vector<std::string> requests, tokens, input_tokens, output_tokens, dollars;  // "60/minute"
  std::int64_t concurrent = -1;
};
int limit_list(const Globals& globals);
int limit_set(const Globals& globals, const LimitOptions& options);
int limit_remove(const Globals& globals, std::int64_t id);

struct UsageOptions {
  std::string by = "model";
  std::string of;
  std::string model;
  std::string since;
  bool requests = false;  // the newest requests one by one
  std::int64_t limit = 100;
};
int usage(const Globals& globals, const UsageOptions& options);
int audit(const Globals& globals, std::int64_t since);

struct ModelOptions {
  std::string name, source, format, licence, card_file;
  std::string key_file, key_env;  // a file that holds the source's key, or a variable that does; empty holds none
  std::int64_t context = -1;
  std::vector<std::string> modalities;
  std::string price_input, price_cached, price_output;  // dollars for a million tokens
  std::int64_t requests_per_replica = -1;
};
int model_list(const Globals& globals);
int model_show(const Globals& globals, const std::string& name);
int model_add(const Globals& globals, const ModelOptions& options);
int model_remove(const Globals& globals, const std::string& name);
struct AliasOptions {
  std::string name;
  std::vector<std::string> targets;  // "model" or "model=weight"; none: the alias goes
};
int model_alias(const Globals& globals, const AliasOptions& options);

// "12.5" as 12'500'000 with 6 decimals; more decimals than that are refused.
Result<std::int64_t> parse_decimal(std::string_view text, int decimals);

}  // namespace capstan::cli
