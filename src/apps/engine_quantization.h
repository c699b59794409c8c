// `capstan-engine quantization-report`: what an arithmetic loses against f32 on this checkpoint.
#pragma once

namespace CLI {
class App;
}

namespace capstan::engine {

// Adds the subcommand; its exit code lands in `exit_code`.
void add_quantization_report(CLI::App& app, int& exit_code);

}  // namespace capstan::engine
