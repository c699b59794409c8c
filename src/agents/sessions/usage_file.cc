#include "agents/sessions/usage_file.h"

#include "agents/sessions/usage_json.h"
#include "base/file.h"
#include "base/log.h"

namespace capstan::agents {
namespace {

constexpr std::uint64_t kBytesMax = 256u << 20;

Result<std::vector<store::ComputeRecord>> read(const std::filesystem::path& path) {
  CAPSTAN_TRY(const std::string text, read_file(path, kBytesMax));
  CAPSTAN_TRY(const Json json, Json::parse(text));
  const Json* list = json.find("records");
  if (list == nullptr || !list->is_array()) return fail(Code::kCorrupt, "no list of records");
  std::vector<store::ComputeRecord> out;
  for (const Json& one : list->items()) {
    CAPSTAN_TRY(auto record, compute_record_of(one));
    out.push_back(std::move(record));
  }
  return out;
}

}  // namespace

std::vector<store::ComputeRecord> UsageFile::load() const {
  std::error_code error;
  if (!std::filesystem::exists(path_, error)) return {};
  auto records = read(path_);
  if (records) return std::move(*records);
  log_error("the usage that a session host left is not understood", "file={} error=\"{}\"", path_.string(),
            records.error().message);
  std::filesystem::rename(path_, path_.string() + ".damaged", error);
  return {};
}

void UsageFile::save(std::span<const store::ComputeRecord> records) {
  Json list = Json::array();
  for (const auto& record : records) list.push_back(to_json(record));
  std::string text = Json::object({{"records", std::move(list)}}).dump();
  if (text == saved_) return;
  auto written = make_directories(path_.parent_path(), 0700);
  if (written) written = write_file_atomic(path_, text, 0600);
  if (!written)
    return log_warn("usage cannot be kept for the next session host", "error=\"{}\"", written.error().message);
  saved_ = std::move(text);
}

}  // namespace capstan::agents
