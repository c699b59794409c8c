// `capstan-engine --model M`: one model behind OpenAI's HTTP interface until SIGTERM or SIGINT.
#pragma once

#include <memory>

namespace CLI {
class App;
}

namespace capstan::engine {

struct ServeOptions;

// Adds the server's options to a command: the program itself, and its alias `serve`.
std::shared_ptr<ServeOptions> add_serve_options(CLI::App& command);
// Runs until a signal; the exit code.
int serve(const ServeOptions& options);

}  // namespace capstan::engine
