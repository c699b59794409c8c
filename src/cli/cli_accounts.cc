// How: as in cli.cc, for the commands about keys, limits, usage and the catalogue.
#include "cli/accounts_commands.h"
#include "cli/add_command.h"

namespace capstan::cli {
namespace {

void add_org_commands(CLI::App& app, Globals& globals, int& exit_code) {
  CLI::App* org = app.add_subcommand("org", "Organisations: who pays");
  add_default(org, exit_code, [&] { return org_list(globals); });
  for (const auto& [verb, help, action] : {std::tuple{"add", "Add an organisation", &org_add},
                                           {"rm", "Remove an organisation without projects", &org_remove}}) {
    auto name = std::make_shared<std::string>();
    CLI::App* command =
        add_command<std::string>(*org, verb, help, fmt::format("capstan org {} acme", verb), exit_code, name,
                                 [&globals, action = action](const auto& o) { return action(globals, o); });
    command->add_option("name", *name, "1 to 63 of a-z 0-9 -")->required();
  }

  CLI::App* project = app.add_subcommand("project", "Projects of organisations: what keys and usage belong to");
  add_default(project, exit_code, [&] { return project_list(globals); });
  auto options = std::make_shared<ProjectOptions>();
  CLI::App* command = add_command<ProjectOptions>(*project, "add", "Add a project",
                                                  "capstan project add acme/web --weight 3", exit_code, options,
                                                  [&](const auto& o) { return project_add(globals, o); });
  command->add_option("project", options->project, "ORGANISATION/PROJECT")->required();
  command->add_option("--weight", options->weight, "its part of saturated replicas, against other projects")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  auto name = std::make_shared<std::string>();
  command = add_command<std::string>(*project, "rm", "Remove a project without keys", "capstan project rm acme/web",
                                     exit_code, name, [&](const auto& o) { return project_remove(globals, o); });
  command->add_option("project", *name, "ORGANISATION/PROJECT")->required();
}

void add_key_commands(CLI::App& app, Globals& globals, int& exit_code) {
  CLI::App* key = app.add_subcommand("key", "Keys for inference and administration");
  add_default(key, exit_code, [&] { return key_list(globals); });
  auto options = std::make_shared<KeyOptions>();
  CLI::App* command = add_command<KeyOptions>(*key, "add", "Make a key and show it, once",
                                              "capstan key add ci --project acme/web --models abacus --expires +90d",
                                              exit_code, options, [&](const auto& o) { return key_add(globals, o); });
  command->add_option("name", options->name, "its name in the project")->required();
  command->add_option("--project", options->project, "ORGANISATION/PROJECT")->capture_default_str();
  command->add_option("--role", options->role, "reader, member, admin or owner: for the scope admin")->capture_default_str();
  command->add_option("--scopes", options->scopes, "inference, models, files, admin (default: the first three)")
      ->delimiter(',');
  command->add_option("--models", options->models, "only these models")->delimiter(',');
  command->add_option("--tier", options->tier, "priority, default, flex or batch")->capture_default_str();
  command->add_option("--expires", options->expires, "+90d, or 2027-01-31T00:00Z");
  command->add_flag("--signing", options->signing, "also an access key id and a secret, for AWS clients (SigV4)");
  auto name = std::make_shared<std::string>();
  command = add_command<std::string>(*key, "revoke", "End a key at once", "capstan key revoke acme/web/ci", exit_code,
                                     name, [&](const auto& o) { return key_revoke(globals, o); });
  command->add_option("key", *name, "ORGANISATION/PROJECT/KEY")->required();
}

void add_limit_commands(CLI::App& app, Globals& globals, int& exit_code) {
  CLI::App* limit = app.add_subcommand("limit", "Limits of requests, tokens and money");
  add_default(limit, exit_code, [&] { return limit_list(globals); });
  auto options = std::make_shared<LimitOptions>();
  CLI::App* command = add_command<LimitOptions>(
      *limit, "set", "Set limits of everyone, an organisation, a project or a key",
      "capstan limit set acme/web --requests 600/minute --tokens 2000000/day --dollars 50/month", exit_code, options,
      [&](const auto& o) { return limit_set(globals, o); });
  command->add_option("of", options->subject, "ORGANISATION, ORGANISATION/PROJECT or ORGANISATION/PROJECT/KEY; none: everyone");
  command->add_option("--model", options->model, "only requests for this model");
  command->add_option("--requests", options->requests, "N/minute, N/day or N/month");
  command->add_option("--tokens", options->tokens, "input and output together, as above");
  command->add_option("--input-tokens", options->input_tokens, "as above");
  command->add_option("--output-tokens", options->output_tokens, "as above");
  command->add_option("--dollars", options->dollars, "as above, for example 12.50/month");
  command->add_option("--concurrent", options->concurrent, "requests at once")->check(CLI::NonNegativeNumber);
  auto id = std::make_shared<std::int64_t>();
  command = add_command<std::int64_t>(*limit, "rm", "Remove a limit", "capstan limit rm 3", exit_code, id,
                                      [&](const auto& o) { return limit_remove(globals, o); });
  command->add_option("limit", *id, "its number")->required();

  auto usage_options = std::make_shared<UsageOptions>();
  command = add_command<UsageOptions>(app, "usage", "What was used and what it cost",
                                      "capstan usage --by key --since 2026-11-01T00:00Z", exit_code, usage_options,
                                      [&](const auto& o) { return usage(globals, o); });
  command->add_option("--by", usage_options->by, "model, project, key or day")
      ->check(CLI::IsMember({"model", "project", "key", "day"}))
      ->capture_default_str();
  command->add_option("--of", usage_options->of, "of an organisation, project or key only");
  command->add_option("--model", usage_options->model, "of this model only");
  command->add_option("--since", usage_options->since, "2026-11-01T00:00Z (UTC); the hour that holds it is included");
  command->add_flag("--requests", usage_options->requests, "the newest requests, one by one");
  command->add_option("--limit", usage_options->limit, "with --requests: at most so many")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();

  auto since = std::make_shared<std::int64_t>();
  command = add_command<std::int64_t>(app, "audit", "Who changed tenants, keys, limits and models", "capstan audit",
                                      exit_code, since, [&](const auto& o) { return audit(globals, o); });
  command->add_option("--since", *since, "only lines after this number")->check(CLI::NonNegativeNumber);
}

void add_model_commands(CLI::App& app, Globals& globals, int& exit_code) {
  CLI::App* model = app.add_subcommand("model", "The catalogue of models");
  add_default(model, exit_code, [&] { return model_list(globals); });
  add_command<int>(*model, "list", "Models, prices and aliases", "capstan model list", exit_code,
                   std::make_shared<int>(), [&](int) { return model_list(globals); });
  auto options = std::make_shared<ModelOptions>();
  CLI::App* command = add_command<ModelOptions>(
      *model, "add", "Add a model, or change what is said of it",
      "capstan model add gpt-oss-20b --source /models/gpt-oss-20b --context 131072 --price-input 0.07 --price-output 0.30",
      exit_code, options, [&](const auto& o) { return model_add(globals, o); });
  command->add_option("name", options->name, "the name that clients ask for")->required();
  command->add_option("--source", options->source, "its directory, or the URL of an OpenAI-compatible server");
  auto* key_file =
      command->add_option("--key-file", options->key_file, "a file with that server's key, or -; an empty one takes it away");
  command->add_option("--key-env", options->key_env, "the name of the variable with that server's key")->excludes(key_file);
  command->add_option("--format", options->format, "gpt-oss, gguf, …");
  command->add_option("--context", options->context, "tokens of prompt and answer together")->check(CLI::NonNegativeNumber);
  command->add_option("--modalities", options->modalities, "text, image, …")->delimiter(',');
  command->add_option("--licence", options->licence, "for example Apache-2.0");
  command->add_option("--price-input", options->price_input, "dollars for a million input tokens");
  command->add_option("--price-cached", options->price_cached, "of those that were cached");
  command->add_option("--price-output", options->price_output, "for a million output tokens");
  command->add_option("--requests-per-replica", options->requests_per_replica, "that a replica serves well together")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--card", options->card_file, "a file with text for people, or -");
  for (const auto& [verb, help, action] : {std::tuple{"show", "One model with its card", &model_show},
                                           {"rm", "Remove a model from the catalogue", &model_remove}}) {
    auto name = std::make_shared<std::string>();
    command = add_command<std::string>(*model, verb, help, fmt::format("capstan model {} abacus", verb), exit_code, name,
                                       [&globals, action = action](const auto& o) { return action(globals, o); });
    command->add_option("name", *name, "the model's name")->required();
  }
  auto alias = std::make_shared<AliasOptions>();
  command = add_command<AliasOptions>(*model, "alias", "Another name for a model, or for several by weights",
                                      "capstan model alias openai.gpt-oss-20b-1:0 gpt-oss-20b", exit_code, alias,
                                      [&](const auto& o) { return model_alias(globals, o); });
  command->add_option("name", alias->name, "the alias")->required();
  command->add_option("target", alias->targets, "MODEL, or several MODEL=WEIGHT; none removes the alias");
}

}  // namespace

void add_accounts_commands(CLI::App& app, Globals& globals, int& exit_code) {
  add_org_commands(app, globals, exit_code);
  add_key_commands(app, globals, exit_code);
  add_limit_commands(app, globals, exit_code);
  add_model_commands(app, globals, exit_code);
}

}  // namespace capstan::cli
