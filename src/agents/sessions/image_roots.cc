// How it works: roots/HASH is a root, roots/HASH.json says of which archive; it is written last, so that a root without it was
// interrupted and does not count.
#include "agents/sessions/image_roots.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/text.h"
#include "sandbox/wire.h"

namespace capstan::agents {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kReadBytes = 1 << 20;
constexpr std::uint64_t kAboutBytesMax = 64 << 10;

Result<std::string> stamp_of(const std::string& archive) {
  struct stat found {};
  if (::stat(archive.c_str(), &found) != 0) return fail_errno("cannot look at " + archive, errno);
  if (!S_ISREG(found.st_mode)) return fail(Code::kInvalid, "{} is no file", archive);
  return fmt::format("{}/{}/{}.{:09}", found.st_ino, found.st_size, found.st_mtim.tv_sec, found.st_mtim.tv_nsec);
}

Result<std::string> hash_of(const std::string& archive) {
  const sandbox::Fd file(::open(archive.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return fail_errno("cannot open " + archive, errno);
  Sha256 hash;
  std::string buffer(kReadBytes, '\0');
  for (;;) {
    const ssize_t count = ::read(file.get(), buffer.data(), buffer.size());
    if (count < 0) return fail_errno("cannot read " + archive, errno);
    if (count == 0) return hex(hash.finish());
    hash.update(std::string_view(buffer).substr(0, static_cast<std::size_t>(count)));
  }
}

}  // namespace

ImageRoots::ImageRoots(fs::path directory, UnpackLimits limits) : directory_(std::move(directory)), limits_(limits) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory_, error)) {
    if (entry.path().extension() != ".json") continue;
    const auto text = read_file(entry.path(), kAboutBytesMax);
    const auto json = text ? Json::parse(*text) : fail(Code::kNotFound, "unreadable");
    if (json) known_[json->get_string("archive").value_or("")] = {json->get_string("stamp").value_or(""), entry.path().stem()};
  }
}

void ImageRoots::keep_only(const std::vector<std::string>& archives) {
  const std::lock_guard lock(mutex_);
  std::erase_if(known_, [&](const auto& one) {
    const auto stamp = stamp_of(one.first);
    return std::ranges::find(archives, one.first) == archives.end() || !stamp || *stamp != one.second.stamp;
  });
  std::error_code error;
  std::vector<fs::path> gone;
  for (const auto& entry : fs::directory_iterator(directory_, error)) {
    const std::string hash = entry.path().stem();
    if (std::ranges::none_of(known_, [&](const auto& one) { return one.second.hash == hash; })) gone.push_back(entry.path());
  }
  std::ranges::sort(gone, std::greater());  // HASH.json before HASH
  for (const fs::path& path : gone) fs::remove_all(path, error);
}

Result<fs::path> ImageRoots::find(const std::string& archive) {
  const std::lock_guard lock(mutex_);
  CAPSTAN_TRY(const std::string stamp, stamp_of(archive));
  Source& source = known_[archive];
  if (source.stamp != stamp) {
    CAPSTAN_TRY(const std::string hash, hash_of(archive));
    if (!fs::exists(directory_ / (hash + ".json"))) CAPSTAN_CHECK(unpack(archive, hash));
    const Json about = Json::object({{"archive", archive}, {"stamp", stamp}});
    CAPSTAN_CHECK(write_file_atomic(directory_ / (hash + ".json"), about.dump() + "\n", 0600));
    source = {stamp, hash};
  }
  return directory_ / source.hash;
}

Result<void> ImageRoots::unpack(const std::string& archive, const std::string& hash) {
  log_info("unpacking a root", "archive={} hash={}", archive, hash);
  std::error_code ignored;
  fs::remove_all(directory_ / hash, ignored);
  CAPSTAN_CHECK(make_directories(directory_, 0700));
  auto done = unpack_root(archive, directory_ / hash, limits_);
  if (!done) fs::remove_all(directory_ / hash, ignored);
  return done;
}

}  // namespace capstan::agents
