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

#include "base/log.h"
#include "engine/server/load_model.h"

namespace capstan::engine {
namespace {

struct ServeOptions {
  LoadOptions load;
  std::string host = "127.0.0.1";
  int port = 0;
  int drain_ms = 30'000;
  std::string isa;
};

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

int serve(const ServeOptions& options) {
  if (const auto chosen = use_isa(options.isa); !chosen) return failed(chosen.error());
  const sigset_t signals = block_signals();
  log_configure("engine", LogLevel::kInfo);
  auto server = EngineServer::start(
      {.host = options.host, .port = options.port, .served_name = options.load.name},
      [&](const EngineServer::Progress& progress) { return load_served_model(options.load, progress); });
  if (!server) return failed(server.error());
  log_info("listening", "url=http://{}:{} model={} directory={}", options.host, (*server)->port(),
           options.load.name, options.load.directory.string());

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

void add_serve(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ServeOptions>();  // shared with the callback, which outlives this function
  CLI::App* command = app.add_subcommand("serve", "Serve a model over OpenAI's HTTP interface");
  command
      ->add_option("--model", options->load.directory,
                   "Directory with config.json, weights and tokenizer.json")
      ->required();
  command->add_option("--host", options->host, "Loopback address to listen on (default 127.0.0.1)");
  command->add_option("--port", options->port, "Port to listen on")->required()->check(CLI::Range(0, 65535));
  command->add_option("--served-name", options->load.name,
                      "Name that requests use (default: the directory's)");
  command
      ->add_option("--context", options->load.context,
                   "Tokens of prompt and answer together (default: the model's)")
      ->check(CLI::Range(2, 1 << 24));
  command->add_option("--threads", options->load.threads, "Threads (default: all that this process may use)")
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--arithmetic", options->load.arithmetic,
                   "default, f32, int12, int8 or int4: how MXFP4 checkpoints are computed (docs/engine.md)")
      ->check(CLI::IsMember({"default", "f32", "int12", "int8", "int4"}));
  command->add_option("--isa", options->isa, "auto, amx, avx512-vnni, avx2 or scalar");
  command->add_option("--sequences", options->load.sequences_max, "Requests decoded together (default 32)")
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--queue", options->load.queue_max,
                   "Requests that may wait; more are answered 429 (default 256)")
      ->check(CLI::Range(1, 1 << 20));
  command
      ->add_option("--drain-ms", options->drain_ms,
                   "How long SIGTERM waits for answers under way (default 30000)")
      ->check(CLI::Range(0, 3'600'000));
  command->footer(
      "Example:\n  capstan-engine serve --model models/abacus --port 9000\n  curl -s "
      "localhost:9000/v1/models");
  command->callback([options, &exit_code] {
    if (options->load.name.empty()) {
      auto directory = options->load.directory.lexically_normal();
      if (!directory.has_filename()) directory = directory.parent_path();
      options->load.name = directory.filename().string();
    }
    exit_code = serve(*options);
  });
}

}  // namespace capstan::engine
