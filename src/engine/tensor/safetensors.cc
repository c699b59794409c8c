// A file is: u64 little-endian header length, header (JSON object: name -> dtype, shape, data_offsets
// relative to the end of the header), data. The header is hostile until every number in it has been checked;
// sizes are computed with overflow checks.
#include "engine/tensor/safetensors.h"

#include <algorithm>
#include <tuple>

#include "base/file.h"
#include "base/json.h"

namespace capstan::engine {
namespace {

constexpr int kDimensionsMax = 8;

struct Extent {
  std::uint64_t begin;
  std::uint64_t end;
  std::string_view name;
};

Result<std::uint64_t> whole_number(const Json& value, std::string_view label, std::string_view name,
                                   std::string_view what) {
  if (!value.is_int() || value.as_int() < 0) {
    return fail(Code::kCorrupt, "{}: tensor '{}': {} must be whole numbers >= 0", label, name, what);
  }
  return static_cast<std::uint64_t>(value.as_int());
}

Result<DType> parse_dtype(const Json& entry, std::string_view label, std::string_view name) {
  const auto text = entry.get_string("dtype");
  if (!text) return fail(Code::kCorrupt, "{}: tensor '{}' has no dtype", label, name);
  for (int type = 0; type <= static_cast<int>(DType::kU64); ++type) {
    if (dtype_name(static_cast<DType>(type)) == *text) return static_cast<DType>(type);
  }
  return fail(Code::kCorrupt, "{}: tensor '{}': unknown dtype '{}'; known are BF16, F16, F32, U8 and so on",
              label, name, *text);
}

// One entry of the header, as a view and its extent in the data.
Result<TensorView> parse_entry(const Json& entry, std::string_view label, std::string_view name,
                               std::span<const std::uint8_t> data, std::vector<Extent>& extents) {
  TensorView view;
  CAPSTAN_TRY(view.dtype, parse_dtype(entry, label, name));
  const Json* shape = entry.find("shape");
  const Json* offsets = entry.find("data_offsets");
  if (shape == nullptr || !shape->is_array() || shape->size() > kDimensionsMax) {
    return fail(Code::kCorrupt, "{}: tensor '{}': shape must be an array of at most {} numbers", label, name,
                kDimensionsMax);
  }
  if (offsets == nullptr || !offsets->is_array() || offsets->size() != 2) {
    return fail(Code::kCorrupt, "{}: tensor '{}': data_offsets must be [begin, end]", label, name);
  }
  std::uint64_t bytes = dtype_bytes(view.dtype);
  for (const Json& item : shape->items()) {
    CAPSTAN_TRY(const std::uint64_t size, whole_number(item, label, name, "the numbers of shape"));
    if (__builtin_mul_overflow(bytes, size, &bytes)) {
      return fail(Code::kCorrupt, "{}: tensor '{}': shape overflows 64 bits", label, name);
    }
    view.shape.push_back(size);
  }
  CAPSTAN_TRY(const std::uint64_t begin, whole_number(offsets->items()[0], label, name, "data_offsets"));
  CAPSTAN_TRY(const std::uint64_t end, whole_number(offsets->items()[1], label, name, "data_offsets"));
  if (begin > end || end > data.size()) {
    return fail(Code::kCorrupt, "{}: tensor '{}': data_offsets [{}, {}] leave the file's {} bytes of data{}",
                label, name, begin, end, data.size(), begin > end ? "" : " (is the file cut short?)");
  }
  if (end - begin != bytes) {
    return fail(Code::kCorrupt, "{}: tensor '{}': {} {} needs {} bytes, data_offsets give {}", label, name,
                dtype_name(view.dtype), view.shape_text(), bytes, end - begin);
  }
  view.bytes = data.subspan(begin, end - begin);
  extents.push_back({begin, end, name});
  return view;
}

Result<void> check_extents(std::vector<Extent>& extents, std::uint64_t data_bytes, std::string_view label) {
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  std::uint64_t at = 0;
  for (const Extent& extent : extents) {
    if (extent.begin < at) {
      return fail(Code::kCorrupt,
                  "{}: tensor '{}' overlaps the one before it (begins at {}, that one ends at {})", label,
                  extent.name, extent.begin, at);
    }
    if (extent.begin > at) {
      return fail(Code::kCorrupt, "{}: bytes {} to {} of the data belong to no tensor", label, at,
                  extent.begin);
    }
    at = extent.end;
  }
  if (at != data_bytes) {
    return fail(Code::kCorrupt, "{}: bytes {} to {} of the data belong to no tensor", label, at, data_bytes);
  }
  return {};
}

}  // namespace

Result<TensorMap> parse_safetensors(std::span<const std::uint8_t> file, std::string_view label) {
  if (file.size() < 8)
    return fail(Code::kCorrupt, "{}: {} bytes are too few for a safetensors file", label, file.size());
  std::uint64_t header_bytes = 0;
  for (int i = 0; i < 8; ++i) header_bytes |= static_cast<std::uint64_t>(file[i]) << (8 * i);
  if (header_bytes > kSafetensorsHeaderMax || header_bytes > file.size() - 8) {
    return fail(Code::kCorrupt,
                "{}: the header's length {} exceeds {}; this is no safetensors file, or it is cut short",
                label, header_bytes, std::min<std::uint64_t>(kSafetensorsHeaderMax, file.size() - 8));
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, header_bytes);
  auto header = Json::parse(text);
  if (!header) return fail(Code::kCorrupt, "{}: the header is no JSON: {}", label, header.error().message);
  if (!header->is_object()) return fail(Code::kCorrupt, "{}: the header must be a JSON object", label);
  TensorMap tensors;
  std::vector<Extent> extents;
  const auto data = file.subspan(8 + header_bytes);
  for (const auto& [name, entry] : header->members()) {
    if (name == "__metadata__") continue;
    if (!entry.is_object()) return fail(Code::kCorrupt, "{}: tensor '{}' must be a JSON object", label, name);
    CAPSTAN_TRY(TensorView view, parse_entry(entry, label, name, data, extents));
    if (!tensors.emplace(name, std::move(view)).second) {
      return fail(Code::kCorrupt, "{}: tensor '{}' stands twice in the header", label, name);
    }
  }
  CAPSTAN_CHECK(check_extents(extents, data.size(), label));
  return tensors;
}

Result<TensorMap> Safetensors::map_file(const std::filesystem::path& path) {
  CAPSTAN_TRY(MappedFile mapping, MappedFile::open(path));
  const auto bytes = mapping.bytes();
  mappings_.push_back(std::move(mapping));
  file_bytes_ += bytes.size();
  return parse_safetensors(bytes, path.string());
}

Result<Safetensors> Safetensors::open_file(const std::filesystem::path& path) {
  Safetensors result;
  CAPSTAN_TRY(result.tensors_, result.map_file(path));
  return result;
}

Result<Safetensors> Safetensors::open_directory(const std::filesystem::path& directory) {
  const auto index_path = directory / "model.safetensors.index.json";
  std::error_code ignored;
  if (!std::filesystem::exists(index_path, ignored)) {
    if (!std::filesystem::exists(directory / "model.safetensors", ignored)) {
      return fail(Code::kNotFound, "{} holds neither model.safetensors nor model.safetensors.index.json",
                  directory.string());
    }
    return open_file(directory / "model.safetensors");
  }
  CAPSTAN_TRY(const std::string text, read_file(index_path, kSafetensorsHeaderMax));
  auto index = Json::parse(text);
  if (!index) return fail(Code::kCorrupt, "{}: {}", index_path.string(), index.error().message);
  const Json* weight_map = index->find("weight_map");
  if (weight_map == nullptr || !weight_map->is_object() || weight_map->size() == 0) {
    return fail(Code::kCorrupt, "{}: weight_map must map tensor names to files", index_path.string());
  }
  Safetensors result;
  std::map<std::string, TensorMap> shards;
  for (const auto& [name, file] : weight_map->members()) {
    if (!file.is_string() || file.as_string().empty() || file.as_string().find('/') != std::string::npos) {
      return fail(Code::kCorrupt, "{}: weight_map['{}'] must name a file of the same directory",
                  index_path.string(), name);
    }
    auto shard = shards.find(file.as_string());
    if (shard == shards.end()) {
      CAPSTAN_TRY(TensorMap tensors, result.map_file(directory / file.as_string()));
      shard = shards.emplace(file.as_string(), std::move(tensors)).first;
    }
    const auto tensor = shard->second.find(name);
    if (tensor == shard->second.end()) {
      return fail(Code::kCorrupt, "{}: tensor '{}' is not in {}, where the index puts it",
                  index_path.string(), name, file.as_string());
    }
    result.tensors_[name] = tensor->second;
  }
  return result;
}

const TensorView* Safetensors::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

}  // namespace capstan::engine
