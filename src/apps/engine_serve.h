// `capstan-engine serve`: one model behind OpenAI's HTTP interface until SIGTERM or SIGINT.
#pragma once

namespace CLI {
class App;
}

namespace capstan::engine {

// Adds the subcommand; its exit code lands in `exit_code`.
void add_serve(CLI::App& app, int& exit_code);

}  // namespace capstan::engine
