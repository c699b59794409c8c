// capstan-engine: runs gpt-oss checkpoints. One subcommand a row of the table at the end.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "apps/engine_bench.h"
#include "apps/engine_quantization.h"
#ifdef CAPSTAN_ENGINE_SERVER
#include "apps/engine_serve.h"
#endif
#include "base/file.h"
#include "base/json.h"
#include "engine/model/model.h"

namespace capstan::engine {
namespace {

constexpr int kExitFailed = 1;

struct Prompt {
  std::string name;
  std::vector<TokenId> tokens;
  bool all = true;
};

Result<Prompt> parse_prompt(const Json& item, std::size_t index) {
  Prompt prompt;
  const auto name = item.get_string("name");
  if (!name || name->empty() || name->find('/') != std::string::npos) {
    return fail(Code::kInvalid, "prompt {} needs a name without '/'; it becomes the file NAME.f32", index);
  }
  prompt.name = *name;
  const Json* tokens = item.find("tokens");
  if (tokens == nullptr || !tokens->is_array() || tokens->size() == 0) {
    return fail(Code::kInvalid, "prompt '{}' needs tokens: a non-empty array of token ids", prompt.name);
  }
  for (const Json& token : tokens->items()) {
    if (!token.is_int() || token.as_int() < 0 || token.as_int() > INT32_MAX) {
      return fail(Code::kInvalid, "prompt '{}': {} is no token id", prompt.name, token.dump());
    }
    prompt.tokens.push_back(static_cast<TokenId>(token.as_int()));
  }
  const std::string logits = item.get_string("logits").value_or("all");
  if (logits != "all" && logits != "last") {
    return fail(Code::kInvalid, "prompt '{}': logits must be \"all\" or \"last\", not \"{}\"", prompt.name,
                logits);
  }
  prompt.all = logits == "all";
  return prompt;
}

Result<std::vector<Prompt>> read_prompts(const std::string& path) {
  CAPSTAN_TRY(const std::string text, read_file(path));
  auto json = Json::parse(text);
  if (!json) return fail(Code::kInvalid, "{}: {}", path, json.error().message);
  if (!json->is_array()) {
    return fail(Code::kInvalid,
                "{} must hold an array: [{{\"name\":\"a\",\"tokens\":[1,2],\"logits\":\"all\"}}]", path);
  }
  std::vector<Prompt> prompts;
  for (const Json& item : json->items()) {
    auto prompt = parse_prompt(item, prompts.size());
    if (!prompt) return std::unexpected(std::move(prompt.error()).with_context(path));
    prompts.push_back(std::move(*prompt));
  }
  return prompts;
}

struct LogitsOptions {
  std::string model, prompts, out, isa;
  std::string arithmetic = "default";
  std::optional<bool> yarn_truncate;
  int chunk = 0;
  int threads = 0;
};

// Prefills one prompt chunk by chunk and appends the wanted rows to NAME.f32.
Result<void> write_logits(Model& model, const Prompt& prompt, const LogitsOptions& options) {
  const auto path = std::filesystem::path(options.out) / (prompt.name + ".f32");
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  KvCache kv(model.config(), model.kv_type());
  const std::span<const TokenId> tokens(prompt.tokens);
  const std::size_t chunk = options.chunk > 0 ? options.chunk : KvCache::kChunkTokensMax;
  std::size_t rows = 0;
  for (std::size_t done = 0; done < tokens.size(); done += chunk) {
    const auto part = tokens.subspan(done, std::min(chunk, tokens.size() - done));
    const bool last = done + part.size() == tokens.size();
    const LogitsOf wanted = prompt.all ? LogitsOf::kAll : last ? LogitsOf::kLast : LogitsOf::kNone;
    auto logits = model.forward(part, kv, wanted);
    if (!logits)
      return std::unexpected(std::move(logits.error()).with_context("prompt '" + prompt.name + "'"));
    file.write(reinterpret_cast<const char*>(logits->values.data()),
               static_cast<std::streamsize>(logits->values.size() * sizeof(float)));
    rows += logits->rows();
  }
  file.close();
  if (!file) return fail(Code::kIo, "cannot write {}", path.string());
  std::printf("%s: %zu x %d\n", path.c_str(), rows, model.config().vocab);
  return {};
}

Result<void> run_logits(const LogitsOptions& options) {
  CAPSTAN_TRY(const auto prompts, read_prompts(options.prompts));
  CAPSTAN_CHECK(use_isa(options.isa));
  CAPSTAN_TRY(ModelOptions how, model_options(options.arithmetic, options.threads));
  how.yarn_truncate = options.yarn_truncate;
  CAPSTAN_TRY(auto model, Model::load(options.model, how));
  CAPSTAN_CHECK(make_directories(options.out));
  for (const Prompt& prompt : prompts) CAPSTAN_CHECK(write_logits(*model, prompt, options));
  return {};
}

int report(const Result<void>& result) {
  if (result) return 0;
  std::fprintf(stderr, "capstan-engine: %s\n", result.error().message.c_str());
  return kExitFailed;
}

void add_logits(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<LogitsOptions>();
  CLI::App* command = app.add_subcommand("logits", "Write the logits of token prompts as raw f32 files");
  command->add_option("--model", options->model, "Directory with config.json and weights, or a .gguf file")
      ->required();
  command
      ->add_option("--prompts", options->prompts,
                   "JSON: [{\"name\":\"a\",\"tokens\":[1,2,3],\"logits\":\"all\"|\"last\"}]")
      ->required();
  command
      ->add_option("--out", options->out,
                   "Directory for NAME.f32 (little-endian, row-major [positions, vocab])")
      ->required();
  command->add_option("--chunk", options->chunk, "Prefill in chunks of N tokens (default: 512)")
      ->check(CLI::Range(1, 1 << 24));
  command
      ->add_option("--arithmetic", options->arithmetic,
                   "f32: exact weights, f32 sums. int8, int4: MXFP4 experts as stored, the rest so rounded, "
                   "activations "
                   "in 15 bits. default: what serving uses")
      ->check(CLI::IsMember({"f32", "int12", "int10", "int8", "int4", "default"}));
  command->add_option("--yarn-truncate", options->yarn_truncate,
                      "true or false: round YaRN's bounds, against the checkpoint (llama.cpp does)");
  command->add_option("--isa", options->isa, "auto, amx, avx512-vnni, avx2 or scalar");
  command->add_option("--threads", options->threads, "Threads (default: all that this process may use)")
      ->check(CLI::Range(1, 1024));
  command->footer(
      "Example:\n  capstan-engine logits --model models/abacus --prompts prompts.json --out /tmp/logits "
      "--chunk 64");
  command->callback([options, &exit_code] { exit_code = report(run_logits(*options)); });
}

int run(int argc, char** argv) {
  CLI::App app(
      "Serves a gpt-oss model (safetensors or GGUF) from this machine's CPU over OpenAI's HTTP interface. "
      "Subcommands do other things with it.",
      "capstan-engine");
  app.require_subcommand(0, 1);
  int exit_code = 0;
  using AddCommand = void (*)(CLI::App&, int&);
  constexpr AddCommand kCommands[] = {
      add_logits, add_quantization_report, add_bench,
  };
  for (AddCommand add : kCommands) add(app, exit_code);
#ifdef CAPSTAN_ENGINE_SERVER
  const auto options = add_serve_options(app);
  CLI::App* alias = app.add_subcommand("serve", "Serve: what this program does without a subcommand");
  const auto alias_options = add_serve_options(*alias);
  alias->callback([&] { exit_code = serve(*alias_options); });
  app.callback([&] {
    if (app.get_subcommands().empty()) exit_code = serve(*options);
  });
#else
  app.require_subcommand(1);
#endif
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return exit_code;
}

}  // namespace
}  // namespace capstan::engine

int main(int argc, char** argv) { return capstan::engine::run(argc, argv); }
