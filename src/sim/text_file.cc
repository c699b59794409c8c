// How it works: the whole file is read; a zstd file is decompressed frame by frame into one string.
#include <zstd.h>

#include <vector>

#include "base/assert.h"
#include "base/file.h"
#include "sim/traces.h"

namespace capstan::sim {
namespace {

Result<std::string> decompress(std::string_view packed, const std::string& path) {
  const std::unique_ptr<ZSTD_DCtx, std::size_t (*)(ZSTD_DCtx*)> zstd(ZSTD_createDCtx(), ZSTD_freeDCtx);
  CAPSTAN_ASSERT(zstd != nullptr);
  std::string text;
  std::vector<char> buffer(ZSTD_DStreamOutSize());
  ZSTD_inBuffer in{packed.data(), packed.size(), 0};
  std::size_t left = 1;  // 0: the frame is complete
  while (in.pos < in.size || left != 0) {
    ZSTD_outBuffer out{buffer.data(), buffer.size(), 0};
    const std::size_t before = in.pos;
    left = ZSTD_decompressStream(zstd.get(), &out, &in);
    if (ZSTD_isError(left) != 0)
      return fail(Code::kInvalid, "{}: this is no intact zstd file ({}); pack it again, or name the plain text", path,
                  ZSTD_getErrorName(left));
    text.append(buffer.data(), out.pos);
    if (text.size() > kTraceBytesMax)
      return fail(Code::kExhausted, "{}: the text is longer than {} MiB, which is the limit", path, kTraceBytesMax >> 20);
    if (left != 0 && in.pos == before && out.pos == 0) return fail(Code::kInvalid, "{}: the zstd file ends too early", path);
  }
  return text;
}

}  // namespace

Result<std::string> read_text_file(const std::filesystem::path& path) {
  CAPSTAN_TRY(std::string bytes, read_file(path, kTraceBytesMax));
  if (path.extension() != ".zst") return bytes;
  return decompress(bytes, path.string());
}

}  // namespace capstan::sim
