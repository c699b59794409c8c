// Signals are blocked in every thread and taken by the main one, which waits for them while the server works.
// A model that cannot be loaded ends the process with its reason, so that whoever started it sees why.
#include "apps/engine_serve.h"

#include <pthread.h>
#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include "apps/loading_line.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/server/load_model.h"
#include "engine/tensor/checkpoint.h"

namespace capstan::engine {

struct ServeOptions {
  LoadOptions load;
  std::string host = "127.0.0.1";
  int port = 8000;
  std::string tls_certificate, tls_key, api_key_file, api_key;
  int drain_ms = 30'000;
  std::string isa;
};

namespace {

constexpr std::size_t kApiKeyBytesMin = 16;

sigset_t block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return signals;
}

int failed(const Error& error) {
  std::fprintf(stderr, "capstan-engine: %s\n", error.message.c_str());
  return 1;
}

int serve_named(const ServeOptions& options) {
  if (const auto chosen = use_isa(options.isa); !chosen) return failed(chosen.error());
  const sigset_t signals = block_signals();
  log_configure("engine", LogLevel::kInfo);
  auto server = EngineServer::start(
      {.host = options.host,
       .port = options.port,
       .served_name = options.load.name,
       .tls_certificate = options.tls_certificate,
       .tls_key = options.tls_key,
       .api_key = options.api_key},
      [&](const EngineServer::Progress& progress) {
        return load_served_model(options.load, [&, shown = LoadingLine()](const LoadProgress& now) mutable {
          progress(now);
          shown.show(now);
        });
      });
  if (!server) return failed(server.error());
  log_info("listening", "url={}://{}:{} model={} files={}",
           options.tls_key.empty() ? "http" : "https", options.host, (*server)->port(), options.load.name,
           options.load.model.string());

  Result<void> ready;
  std::thread watcher([&, main = pthread_self()] {
    ready = (*server)->wait_ready();
    if (ready) {
      log_info("ready", "model={}", options.load.name);
    } else {
      pthread_kill(main, SIGTERM);
    }
  });
  int signal_number = 0;
  sigwait(&signals, &signal_number);
  // Loading cannot be interrupted; nothing is under way yet, so the process may simply end.
  if (!(*server)->ready()) {
    if (auto error = (*server)->load_error()) std::_Exit(failed(*error));
    std::_Exit(0);
  }
  watcher.join();
  log_info("draining", "signal={} drain_ms={}", signal_number, options.drain_ms);
  (*server)->drain(options.drain_ms);
  return 0;
}

}  // namespace

std::shared_ptr<ServeOptions> add_serve_options(CLI::App& command) {
  auto options = std::make_shared<ServeOptions>();  // shared with the callback, which outlives this function
  command
      .add_option("-m,--model", options->load.model,
                  "A directory (config.json, weights, tokenizer.json; or a .gguf file in it), or a .gguf file")
      ->group("Model");
  command.add_option("--served-name", options->load.name, "Name that requests use (default: the directory's or file's)")
      ->group("Model");
  command.add_option("--context", options->load.context,
                     "Tokens of prompt and answer together (default: the model's, or what memory allows)")
      ->check(CLI::Range(2, 1 << 24))
      ->group("Model");
  command.add_option("--arithmetic", options->load.arithmetic,
                     "default, f32, int12, int10, int8 or int4: how MXFP4 checkpoints are computed (docs/engine.md)")
      ->check(CLI::IsMember({"default", "f32", "int12", "int10", "int8", "int4"}))
      ->group("Model");
  command.add_option("--yarn-truncate", options->load.yarn_truncate,
                     "true or false: round YaRN's bounds, against the checkpoint (llama.cpp does)")
      ->group("Model");
  command.add_option("--threads", options->load.threads, "Threads (default: all that this process may use)")
      ->check(CLI::Range(1, 1024))
      ->group("Model");
  command.add_option("--isa", options->isa, "auto, amx, avx512-vnni, avx2 or scalar")->group("Model");
  command.add_option("--port", options->port, "Port (default 8000; 0: any free one)")
      ->check(CLI::Range(0, 65535))
      ->group("Server");
  command.add_option("--host", options->host,
                     "Address (default 127.0.0.1). Another than loopback needs the three options below")
      ->group("Server");
  command.add_option("--tls-cert", options->tls_certificate, "Certificate chain (PEM)")
      ->check(CLI::ExistingFile)
      ->group("Server");
  command.add_option("--tls-key", options->tls_key, "Its key (PEM)")->check(CLI::ExistingFile)->group("Server");
  command.add_option("--api-key-file", options->api_key_file, "File with the key that requests must bring")
      ->check(CLI::ExistingFile)
      ->group("Server");
  command.add_option("--drain-ms", options->drain_ms, "How long SIGTERM waits for answers under way (default 30000)")
      ->check(CLI::Range(0, 3'600'000))
      ->group("Server");
  command.add_option("--sequences", options->load.sequences_max, "Requests decoded together (default 32)")
      ->check(CLI::Range(1, 1024))
      ->group("Limits");
  command.add_option("--kv-bytes", options->load.kv_bytes,
                     "Memory of keys and values, cached ones included, like 4GiB (default: half of what the weights leave)")
      ->transform(CLI::AsSizeValue(false))
      ->group("Limits");
  command.add_flag("!--no-prefix-cache", options->load.prefix_cache, "Compute every prompt from its start")->group("Limits");
  command.add_option("--speculation", options->load.speculation_tokens,
                     "Tokens guessed ahead from the sequence's own past (default 4; 0: none)")
      ->check(CLI::Range(0, 16))
      ->group("Limits");
  command.add_option("--queue", options->load.queue_max, "Requests that may wait; more are answered 429 (default 256)")
      ->check(CLI::Range(1, 1 << 20))
      ->group("Limits");
  command.footer(
      "Examples:\n"
      "  capstan-engine --model models/abacus\n"
      "  capstan-engine --model gpt-oss-20b-mxfp4.gguf --port 8000 --context 16384\n"
      "  curl -s localhost:8000/v1/chat/completions -d '{\"model\":\"abacus\",\"messages\":[{\"role\":\"user\","
      "\"content\":\"What is 2+2?\"}]}'");
  return options;
}

int serve(const ServeOptions& given) {
  ServeOptions options = given;
  if (options.load.model.empty())
    return failed({Code::kInvalid, "name a model: capstan-engine --model DIR|FILE.gguf (--help says more)", {}});
  const auto files = find_model_files(options.load.model);
  if (!files) return failed(files.error());
  if (options.load.name.empty()) options.load.name = files->name();
  if (!options.api_key_file.empty()) {
    const auto key = read_file(options.api_key_file, 4096);
    if (!key) return failed(key.error());
    options.api_key = trim(*key);
    if (options.api_key.size() < kApiKeyBytesMin)
      return failed({Code::kInvalid,
                     fmt::format("{}: a key of at least {} characters would be right", options.api_key_file, kApiKeyBytesMin),
                     {}});
  }
  return serve_named(options);
}

}  // namespace capstan::engine
