// `capstan-engine bench`: what the engine does on this machine, in llama-bench's shape.
#pragma once

#include <CLI/CLI.hpp>

namespace capstan::engine {

void add_bench(CLI::App& app, int& exit_code);

}  // namespace capstan::engine
