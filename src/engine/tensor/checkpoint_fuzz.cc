// Fuzzes what reads a checkpoint's files: safetensors, GGUF with its configuration, config.json. No input may crash them
// or give a view outside of the file.
//
// The first byte says which. Under libFuzzer with CAPSTAN_LIBFUZZER; without, main() below mutates valid files (argument:
// how many) and reads every file named after it, so `make test` keeps it alive.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/file.h"
#include "engine/tensor/gguf.h"
#include "engine/tensor/model_config.h"
#include "engine/tensor/safetensors.h"
#include "engine/testing/mutate.h"
#include "engine/testing/random_checkpoint.h"

namespace {

using namespace capstan;
using namespace capstan::engine;

void must_be_inside(const TensorMap& tensors, std::span<const std::uint8_t> file) {
  for (const auto& [name, view] : tensors) {
    if (view.bytes.data() >= file.data() && view.bytes.data() + view.bytes.size() <= file.data() + file.size()) continue;
    std::fprintf(stderr, "tensor '%s' leaves the file\n", name.c_str());
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::span file(data + 1, size - 1);
  if (data[0] % 3 == 0) {
    if (const auto tensors = parse_safetensors(file, "x")) must_be_inside(*tensors, file);
  } else if (data[0] % 3 == 1) {
    const auto contents = parse_gguf(file, "x");
    if (!contents) return 0;
    must_be_inside(contents->tensors, file);
    (void)contents->metadata.strings("tokenizer.ggml.tokens");
    (void)contents->metadata.integers("tokenizer.ggml.token_type");
  } else if (const auto json = Json::parse({reinterpret_cast<const char*>(file.data()), file.size()})) {
    if (const auto config = parse_model_config(*json)) (void)rope_frequencies(config->rope, config->head_dim);
  }
  return 0;
}

#ifndef CAPSTAN_LIBFUZZER
int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 3'000;
  const engine::testing::RandomCheckpoint checkpoint(
      {.layers = 1, .hidden = 32, .experts = 1, .experts_per_token = 1, .vocab = 2});
  const std::string valid[] = {checkpoint.safetensors(), checkpoint.gguf({}).front(), checkpoint.config_json()};
  Prng random(42);
  for (int round = 0; round < rounds; ++round) {
    const auto kind = static_cast<std::size_t>(round) % 3;
    const std::string input =
        std::string(1, static_cast<char>(kind)) + engine::testing::mutated(valid[kind], random, 2600);
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
  }
  for (int i = 2; i < argc; ++i) {
    const auto input = read_file(argv[i]);
    if (!input) return 1;
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input->data()), input->size());
  }
  std::printf("%d mutated files, %d files\n", rounds, argc > 2 ? argc - 2 : 0);
  return 0;
}
#endif
