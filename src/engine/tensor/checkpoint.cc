// Which files, then the format's own reader.
#include "engine/tensor/checkpoint.h"

#include <algorithm>
#include <set>

#include "engine/tensor/gguf_config.h"

namespace capstan::engine {
namespace {

namespace fs = std::filesystem;

Result<ModelFiles> gguf_in(const fs::path& directory) {
  std::error_code error;
  std::set<std::vector<fs::path>> found;  // the parts of one file count once
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (entry.path().extension() != ".gguf") continue;
    CAPSTAN_TRY(auto parts, gguf_parts(entry.path()));
    found.insert(std::move(parts));
  }
  if (error) return fail(Code::kIo, "{}: {}", directory.string(), error.message());
  if (found.empty())
    return fail(Code::kNotFound,
                "{} holds no model: neither model.safetensors, nor model.safetensors.index.json, nor a .gguf file",
                directory.string());
  if (found.size() > 1) {
    std::vector<std::string> names;
    for (const auto& parts : found) names.push_back(parts.front().filename().string());
    return fail(Code::kInvalid, "{} holds several GGUF files; name one of them: {}", directory.string(),
                fmt::join(names, ", "));
  }
  return ModelFiles{directory, *found.begin()};
}

}  // namespace

std::string ModelFiles::name() const {
  if (!is_gguf()) {
    const fs::path normal = directory.lexically_normal();
    return normal.has_filename() ? normal.filename().string() : normal.parent_path().filename().string();
  }
  std::string stem = gguf.front().stem().string();
  constexpr std::string_view kPart = "-00001-of-00000";
  if (gguf.size() > 1 && stem.size() > kPart.size()) stem.resize(stem.size() - kPart.size());
  return stem;
}

Result<ModelFiles> find_model_files(const fs::path& model) {
  std::error_code ignored;
  if (!fs::exists(model, ignored))
    return fail(Code::kNotFound,
                "{} does not exist; a model is a directory (config.json and model.safetensors, or a .gguf file in it), "
                "or a .gguf file",
                model.string());
  if (fs::is_directory(model, ignored)) {
    for (const char* name : {"model.safetensors", "model.safetensors.index.json", "config.json"}) {
      if (fs::exists(model / name, ignored) && (std::string_view(name) != "config.json" || !gguf_in(model)))
        return ModelFiles{model, {}};
    }
    return gguf_in(model);
  }
  if (model.extension() != ".gguf")
    return fail(Code::kInvalid, "{} is neither a directory nor a .gguf file", model.string());
  CAPSTAN_TRY(auto parts, gguf_parts(model));
  const fs::path directory = model.parent_path();
  return ModelFiles{directory.empty() ? fs::path(".") : directory, std::move(parts)};
}

Result<Checkpoint> Checkpoint::open(const fs::path& model) {
  Checkpoint result;
  CAPSTAN_TRY(result.files_, find_model_files(model));
  if (!result.files_.is_gguf()) {
    CAPSTAN_TRY(result.config_, read_model_config(result.files_.directory));
    CAPSTAN_TRY(result.data_, Safetensors::open_directory(result.files_.directory));
    return result;
  }
  CAPSTAN_TRY(Gguf file, Gguf::open(result.files_.gguf.front()));
  auto config = gguf_model_config(file);
  if (!config) return std::unexpected(std::move(config.error()).with_context(result.files_.shown()));
  result.config_ = *std::move(config);
  result.data_ = std::move(file);
  return result;
}

const TensorMap& Checkpoint::tensors() const {
  return std::visit([](const auto& data) -> const TensorMap& { return data.tensors(); }, data_);
}

std::uint64_t Checkpoint::file_bytes() const {
  return std::visit([](const auto& data) { return data.file_bytes(); }, data_);
}

}  // namespace capstan::engine
