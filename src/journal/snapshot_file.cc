// How it works: pieces of text fill a buffer; a full buffer is hashed, compressed and written. An error is
// kept and ends the work quietly: the text's writer need not know.
#include "journal/snapshot_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <cerrno>
#include <vector>

#include "base/assert.h"
#include "base/sha256.h"
#include "base/text.h"

namespace capstan::journal {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;
constexpr int kLevel = 1;                                       // disks are faster than higher levels
constexpr std::int64_t kTextBytesMax = std::int64_t{64} << 30;  // a larger size is damage

}  // namespace

struct SnapshotFileWriter::State {
  std::string path;
  int file = -1;
  int directory = -1;
  bool complete = false;
  Sha256 sha;
  ZSTD_CCtx* zstd = nullptr;
  std::string text;
  std::string packed;
  SnapshotFile result;
  int error_number = 0;

  ~State() {
    ZSTD_freeCCtx(zstd);
    if (file >= 0) ::close(file);
    if (directory >= 0) ::close(directory);
    if (!complete) ::unlink(temporary_path(path).c_str());
  }
  void put(std::string_view bytes) {
    while (!bytes.empty() && error_number == 0) {
      const ssize_t written = ::write(file, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) {
        error_number = written < 0 ? errno : ENOSPC;
        return;
      }
      result.file_bytes += written;
      bytes.remove_prefix(static_cast<std::size_t>(written));
    }
  }
  void flush(bool last) {
    if (error_number != 0) return text.clear();
    sha.update(text);
    result.text_bytes += static_cast<std::int64_t>(text.size());
    ZSTD_inBuffer in{text.data(), text.size(), 0};
    for (;;) {
      ZSTD_outBuffer out{packed.data(), packed.size(), 0};
      const std::size_t left = ZSTD_compressStream2(zstd, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
      CAPSTAN_ASSERT(ZSTD_isError(left) == 0);
      put({packed.data(), out.pos});
      if (error_number != 0 || (last ? left == 0 : in.pos == in.size)) break;
    }
    text.clear();
  }
  void take(std::string_view piece) {
    while (!piece.empty()) {
      const std::size_t now = std::min(piece.size(), kBufferBytes - text.size());
      text.append(piece.substr(0, now));
      piece.remove_prefix(now);
      if (text.size() == kBufferBytes) flush(false);
    }
  }
};

SnapshotFileWriter::SnapshotFileWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
SnapshotFileWriter::~SnapshotFileWriter() = default;
SnapshotFileWriter::SnapshotFileWriter(SnapshotFileWriter&&) noexcept = default;

int SnapshotFileWriter::file_fd() const { return state_->file; }
int SnapshotFileWriter::directory_fd() const { return state_->directory; }
void SnapshotFileWriter::release() { state_->complete = true; }

Result<SnapshotFileWriter> SnapshotFileWriter::prepare(const std::string& path) {
  auto state = std::make_unique<State>();
  state->path = path;
  const std::string temporary = temporary_path(path);
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  state->directory = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (state->directory < 0) return fail_errno("cannot open " + directory, errno);
  state->file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (state->file < 0) return fail_errno("cannot write " + temporary, errno);
  state->zstd = ZSTD_createCCtx();
  CAPSTAN_ASSERT(state->zstd != nullptr);
  ZSTD_CCtx_setParameter(state->zstd, ZSTD_c_compressionLevel, kLevel);
  ZSTD_CCtx_setParameter(state->zstd, ZSTD_c_checksumFlag, 1);
  state->text.reserve(kBufferBytes);
  state->packed.resize(ZSTD_CStreamOutSize());
  return SnapshotFileWriter(std::move(state));
}

Result<SnapshotFile> SnapshotFileWriter::write(const TextWriter& write) {
  State& state = *state_;
  write([&](std::string_view piece) { state.take(piece); });
  state.flush(true);
  const std::string temporary = temporary_path(state.path);
  if (state.error_number == 0 && ::fsync(state.file) != 0) state.error_number = errno;
  if (state.error_number != 0) return fail_errno("cannot write " + temporary, state.error_number);
  if (::rename(temporary.c_str(), state.path.c_str()) != 0)
    return fail_errno("cannot rename " + temporary, errno);
  state.complete = true;
  if (::fsync(state.directory) != 0) return fail_errno("cannot sync the directory of " + state.path, errno);
  state.result.state_hash = hex(state.sha.finish());
  return state.result;
}

Result<SnapshotFile> write_snapshot_file(const std::string& path, const TextWriter& write) {
  CAPSTAN_TRY(auto writer, SnapshotFileWriter::prepare(path));
  return writer.write(write);
}

Result<std::string> read_snapshot_file(const std::string& path, std::string_view state_hash,
                                       std::int64_t text_bytes) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail_errno("cannot read " + path, errno);
  const std::unique_ptr<const int, void (*)(const int*)> closer(&fd, [](const int* it) { ::close(*it); });
  if (text_bytes < 0 || text_bytes > kTextBytesMax)
    return fail(Code::kCorrupt, "{} cannot be {} bytes long", path, text_bytes);
  const std::unique_ptr<ZSTD_DCtx, std::size_t (*)(ZSTD_DCtx*)> zstd(ZSTD_createDCtx(), ZSTD_freeDCtx);
  std::string text(static_cast<std::size_t>(text_bytes), '\0');
  std::vector<char> packed(kBufferBytes);
  ZSTD_outBuffer out{text.data(), text.size(), 0};
  std::size_t left = 1;  // 0: the frame is complete
  for (;;) {
    const ssize_t got = ::read(fd, packed.data(), packed.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("cannot read " + path, errno);
    if (got == 0) break;
    ZSTD_inBuffer in{packed.data(), static_cast<std::size_t>(got), 0};
    while (in.pos < in.size) {
      const std::size_t before = in.pos + out.pos;
      left = ZSTD_decompressStream(zstd.get(), &out, &in);
      if (ZSTD_isError(left) != 0)
        return fail(Code::kCorrupt, "{} is damaged: {}", path, ZSTD_getErrorName(left));
      if (in.pos + out.pos == before) return fail(Code::kCorrupt, "{} is longer than it was", path);
    }
  }
  if (left != 0 || out.pos != text.size()) return fail(Code::kCorrupt, "{} is torn", path);
  if (sha256_hex(text) != state_hash)
    return fail(Code::kCorrupt, "{} does not hold the state that was saved in it", path);
  return text;
}

}  // namespace capstan::journal
