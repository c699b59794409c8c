// How it works: sizes follow from the shapes, so the header is written before any tensor is made, and the
// tensors are then made and written one after the other.
#include "trainer/safetensors_writer.h"

#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/assert.h"
#include "base/json.h"

namespace capstan::trainer {
namespace {

std::string_view type_name(TensorType type) {
  switch (type) {
    case TensorType::kBf16:
      return "BF16";
    case TensorType::kF32:
      return "F32";
    case TensorType::kU8:
      return "U8";
  }
  CAPSTAN_ASSERT(false);
}

std::uint64_t byte_count(const SafetensorsEntry& entry) {
  std::uint64_t count = entry.type == TensorType::kBf16 ? 2 : entry.type == TensorType::kF32 ? 4 : 1;
  for (const std::uint64_t extent : entry.shape) count *= extent;
  return count;
}

std::string header_of(const std::vector<SafetensorsEntry>& entries) {
  Json header = Json::object({{"__metadata__", Json::object({{"format", "pt"}})}});
  std::uint64_t offset = 0;
  for (const SafetensorsEntry& entry : entries) {
    CAPSTAN_ASSERT(!header.contains(entry.name));
    Json shape = Json::array();
    for (const std::uint64_t extent : entry.shape) shape.push_back(extent);
    const std::uint64_t end = offset + byte_count(entry);
    header[entry.name] = Json::object({{"dtype", type_name(entry.type)},
                                       {"shape", std::move(shape)},
                                       {"data_offsets", Json::array({Json(offset), Json(end)})}});
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

Result<void> write_all(std::FILE* file, const std::vector<SafetensorsEntry>& entries,
                       const std::string& what) {
  static_assert(std::endian::native == std::endian::little);
  const std::string header = header_of(entries);
  const std::uint64_t length = header.size();
  bool good = std::fwrite(&length, sizeof length, 1, file) == 1;
  good = good && std::fwrite(header.data(), 1, header.size(), file) == header.size();
  for (const SafetensorsEntry& entry : entries) {
    if (!good) break;
    const std::vector<std::uint8_t> bytes = entry.bytes();
    CAPSTAN_ASSERT(bytes.size() == byte_count(entry));
    good = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  }
  if (!good || std::fflush(file) != 0 || ::fsync(::fileno(file)) != 0) return fail_errno(what, errno);
  return {};
}

}  // namespace

std::uint16_t bf16_of(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

Result<void> write_safetensors(const std::filesystem::path& path,
                               const std::vector<SafetensorsEntry>& entries) {
  const std::filesystem::path unfinished = path.string() + ".tmp";
  const std::string what = fmt::format("cannot write {}", path.string());
  std::FILE* file = std::fopen(unfinished.c_str(), "wbe");
  if (file == nullptr) return fail_errno(what, errno);
  Result<void> written = write_all(file, entries, what);
  const int closed = std::fclose(file);
  if (written && closed != 0) written = fail_errno(what, errno);
  if (written && std::rename(unfinished.c_str(), path.c_str()) != 0) written = fail_errno(what, errno);
  if (!written) std::remove(unfinished.c_str());
  return written;
}

}  // namespace capstan::trainer
