// How it works: the matrices are listed in one order; places in the file follow from the list. Making the
// file: each thread packs ranges of panels into a buffer and writes them where they belong; pages of the
// checkpoint are given back matrix by matrix.
#include "engine/model/packed_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/paths.h"
#include "base/sha256.h"
#include "engine/model/screened_head.h"

namespace capstan::engine {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kPage = 4'096;
constexpr std::string_view kMagic = "CAPSTAN-PACKED-2\n";
constexpr int kPanelsPerPiece = 16;

std::uint64_t pages(std::uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

struct Entry {
  std::string name;
  WeightView from;
  PackedType type = PackedType::kInt8;
  PackedMatrix* to = nullptr;  // null: not the matrix, but the doubts of its rows in this type
  std::uint64_t at = 0;
  std::uint64_t bytes = 0;

  std::uint64_t panel_bytes() const { return bytes / static_cast<std::uint64_t>(panels(from.rows)); }
  void pack(int begin, int end, std::uint8_t* out) const {
    if (to != nullptr) return pack_panels(from, type, begin, end, out);
    std::memset(out, 0, static_cast<std::size_t>(end - begin) * panel_bytes());
    screen_doubts(from, type, begin * kPanelRows, std::min(from.rows, end * kPanelRows), reinterpret_cast<float*>(out));
  }
};

struct Entries {
  std::vector<Entry> all;
  std::size_t every_token = 0;  // so many from the front
  std::size_t head = 0;
  std::size_t experts = 0;  // from here on, two each
};

Entries entries_of(Weights& weights, PackedType dense, bool screen) {
  Entries entries;
  std::vector<Entry>& out = entries.all;
  const auto add = [&](std::string name, const WeightView& from, PackedType type, PackedMatrix& to) {
    out.push_back({std::move(name), from, type, &to, 0, packed_bytes(type, from.rows, from.cols)});
  };
  // What every token needs comes first and lies together.
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    LayerWeights& layer = weights.layers[i];
    for (const auto& [name, linear] :
         {std::pair("q", &layer.q), {"k", &layer.k}, {"v", &layer.v}, {"o", &layer.o}})
      add(fmt::format("{}.{}", i, name), linear->weight, dense, linear->packed);
  }
  if (screen) {
    add("screen", weights.head, PackedType::kMxfp4, weights.head_screen);
    const std::uint64_t rows = static_cast<std::uint64_t>(panels(weights.head.rows)) * kPanelRows;
    out.push_back({"doubts", weights.head, PackedType::kMxfp4, nullptr, 0, rows * sizeof(float)});
    entries.every_token = out.size();
  }
  entries.head = out.size();
  add("head", weights.head, dense, weights.packed_head);
  entries.experts = out.size();
  if (!screen) entries.every_token = out.size();
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    LayerWeights& layer = weights.layers[i];
    layer.packed_gate_up.resize(layer.gate_up.size());
    layer.packed_down.resize(layer.down.size());
    for (std::size_t e = 0; e < layer.gate_up.size(); ++e) {
      add(fmt::format("{}.{}.gate_up", i, e), layer.gate_up[e], PackedType::kMxfp4, layer.packed_gate_up[e]);
      add(fmt::format("{}.{}.down", i, e), layer.down[e], PackedType::kMxfp4, layer.packed_down[e]);
    }
  }
  return entries;
}

PackedType default_dense(const Weights& weights) {
  const auto is_q8_0 = [](const WeightView& view) { return view.type == WeightType::kQ8_0; };
  const bool all = is_q8_0(weights.head) && std::ranges::all_of(weights.layers, [&](const LayerWeights& layer) {
                     return is_q8_0(layer.q.weight) && is_q8_0(layer.k.weight) && is_q8_0(layer.v.weight) &&
                            is_q8_0(layer.o.weight);
                   });
  return all ? PackedType::kInt8 : PackedType::kInt10;
}

bool can_be_packed(const Weights& weights) {
  const auto fits = [](const WeightView& view) { return !view.input_major && view.cols % kPackedBlock == 0; };
  for (const LayerWeights& layer : weights.layers) {
    for (const auto* linear : {&layer.q, &layer.k, &layer.v, &layer.o}) {
      if (!fits(linear->weight)) return false;
    }
    for (const auto* experts : {&layer.gate_up, &layer.down}) {
      for (const WeightView& view : *experts) {
        if (!view.is_mxfp4() || !fits(view)) return false;
      }
    }
  }
  return fits(weights.head);
}

// Places every matrix; the list as it stands in the file, and the file's size.
std::pair<std::string, std::uint64_t> place(std::vector<Entry>& entries) {
  Json list = Json::array();
  for (const Entry& entry : entries)
    list.push_back(Json::array({entry.name, packed_type_name(entry.type), entry.from.rows, entry.from.cols}));
  std::string head(kMagic);
  head += list.dump();
  head += '\n';
  std::uint64_t at = pages(head.size());
  for (Entry& entry : entries) {
    entry.at = at;
    at += pages(entry.bytes);
  }
  head.resize(pages(head.size()), '\0');
  return {std::move(head), at};
}

// Of the checkpoint's files: a copy of them elsewhere is another checkpoint, a changed one too.
std::string fingerprint(const ModelFiles& files) {
  std::vector<std::string> lines;
  const auto add = [&lines](const fs::path& path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) return;
    lines.push_back(fmt::format("{} {} {}.{}", path.filename().string(), status.st_size, status.st_mtim.tv_sec,
                                status.st_mtim.tv_nsec));
  };
  std::error_code ignored;
  if (files.is_gguf()) {
    for (const fs::path& part : files.gguf) add(part);
  } else {
    for (const auto& file : fs::directory_iterator(files.directory, ignored)) {
      const std::string name = file.path().filename().string();
      if (name.ends_with(".safetensors") || name == "config.json") add(file.path());
    }
  }
  std::sort(lines.begin(), lines.end());
  return sha256_hex(fmt::format("{}", fmt::join(lines, "\n"))).substr(0, 16);
}

// What was read of a matrix may leave memory: it is not read again.
void forget(const WeightView& view) {
  const std::size_t bytes = static_cast<std::size_t>(view.rows) * row_bytes(view.type, view.cols);
  forget_pages(view.data, view.odd_rows == nullptr ? bytes : bytes / 2);
  if (view.odd_rows != nullptr) forget_pages(view.odd_rows, bytes / 2);
  if (view.scales != nullptr) forget_pages(view.scales, bytes / 16);
}

// Writes all of the file's matrices.
Result<void> pack_into(
    const std::vector<Entry>& entries, ThreadPool& pool, std::uint64_t total, const PackProgress& progress,
    const std::function<bool(std::uint64_t at, const std::vector<std::uint8_t>& bytes)>& write) {
  std::uint64_t done = 0;
  for (const Entry& entry : entries) {
    const int count = panels(entry.from.rows);
    const std::uint64_t each = entry.panel_bytes();
    std::atomic<bool> well{true};
    pool.parallel_for((count + kPanelsPerPiece - 1) / kPanelsPerPiece, [&](int piece) {
      static thread_local std::vector<std::uint8_t> buffer;
      const int begin = piece * kPanelsPerPiece, end = std::min(count, begin + kPanelsPerPiece);
      buffer.resize(static_cast<std::size_t>(end - begin) * each);
      entry.pack(begin, end, buffer.data());
      if (!write(entry.at + static_cast<std::uint64_t>(begin) * each, buffer)) well = false;
    });
    if (!well)
      return fail(errno == ENOSPC ? Code::kExhausted : Code::kIo, "writing packed weights: {}",
                  std::strerror(errno));
    forget(entry.from);
    done += entry.bytes;
    if (progress) progress(done, total);
  }
  return {};
}

bool write_all(int fd, std::uint64_t at, const std::uint8_t* data, std::size_t size) {
  while (size > 0) {
    const ssize_t wrote = ::pwrite(fd, data, size, static_cast<off_t>(at));
    if (wrote <= 0) return false;
    at += static_cast<std::uint64_t>(wrote);
    data += wrote;
    size -= static_cast<std::size_t>(wrote);
  }
  return true;
}

Result<void> make_file(const fs::path& path, const std::string& head, std::uint64_t total,
                       const std::vector<Entry>& entries, ThreadPool& pool, const PackProgress& progress) {
  const fs::path unfinished = fmt::format("{}.{}.tmp", path.string(), ::getpid());
  const int fd = ::open(unfinished.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return fail(Code::kDenied, "{}: {}", unfinished.string(), std::strerror(errno));
  Result<void> result;
  struct statvfs room {};
  if (::fstatvfs(fd, &room) == 0 &&
      static_cast<std::uint64_t>(room.f_bavail) * room.f_frsize < total + (1u << 30)) {
    result = fail(Code::kExhausted, "{}: no room for {:.1f} GiB, with 1 GiB left free", path.string(),
                  static_cast<double>(total) / (1 << 30));
  } else {
    result = pack_into(entries, pool, total, progress,
                       [fd](std::uint64_t at, const std::vector<std::uint8_t>& bytes) {
                         return write_all(fd, at, bytes.data(), bytes.size());
                       });
    if (result && (!write_all(fd, 0, reinterpret_cast<const std::uint8_t*>(head.data()), head.size()) ||
                   ::ftruncate(fd, static_cast<off_t>(total)) != 0 || ::fdatasync(fd) != 0 ||
                   ::rename(unfinished.c_str(), path.c_str()) != 0))
      result = fail(Code::kIo, "{}: {}", path.string(), std::strerror(errno));
  }
  ::close(fd);
  if (!result) ::unlink(unfinished.c_str());
  return result;
}

// Files of the same kind beside a checkpoint that has changed since.
void remove_outdated(const fs::path& path, const std::string& prefix) {
  std::error_code ignored;
  for (const auto& file : fs::directory_iterator(path.parent_path(), ignored)) {
    const std::string name = file.path().filename().string();
    if (file.path() != path && name.starts_with(prefix) && name.ends_with(".bin")) fs::remove(file.path(), ignored);
  }
}

// nullptr: it is not there, or not this list.
std::unique_ptr<FileMemory> open_file(const fs::path& path, const std::string& head, std::uint64_t total) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return nullptr;
  struct stat status {};
  std::string found(head.size(), '\0');
  if (::fstat(fd, &status) == 0 && static_cast<std::uint64_t>(status.st_size) == total &&
      ::pread(fd, found.data(), found.size(), 0) == static_cast<ssize_t>(head.size()) && found == head) {
    auto memory = FileMemory::of_file(fd, total);
    return memory ? std::move(*memory) : nullptr;
  }
  ::close(fd);
  return nullptr;
}

// "packed-int10-", and the file's name before it for GGUF, of which several may lie in one directory.
std::string prefix_for(const ModelFiles& files, PackedType dense) {
  return fmt::format("{}packed-{}-", files.is_gguf() ? files.name() + "." : "", packed_type_name(dense));
}

std::vector<fs::path> places_for(const ModelFiles& files, const PackOptions& options, PackedType dense) {
  const std::string name = fmt::format("{}{}.bin", prefix_for(files, dense), fingerprint(files));
  if (!options.cache.empty()) return {options.cache / name};
  return {files.directory / ("." + name), default_cache_directory() / "engine" / name};
}

}  // namespace

bool wants_screen(const PackOptions& options, int vocab) {
  const bool fine = !options.dense || *options.dense == PackedType::kInt10 || *options.dense == PackedType::kInt12;
  return vocab >= kScreenedVocabMin && options.screen.value_or(fine);
}

Result<std::unique_ptr<PackedStore>> PackedStore::open(Weights& weights, const PackOptions& options,
                                                       ThreadPool& pool, const PackProgress& progress) {
  const ModelFiles& files = weights.checkpoint.files();
  if (!can_be_packed(weights)) return std::unique_ptr<PackedStore>();
  const PackedType dense = options.dense.value_or(default_dense(weights));
  Entries listed = entries_of(weights, dense, wants_screen(options, weights.head.rows));
  std::vector<Entry>& entries = listed.all;
  const auto [head, total] = place(entries);
  auto store = std::unique_ptr<PackedStore>(new PackedStore());
  store->bytes_ = total;
  const auto places = places_for(files, options, dense);
  for (const fs::path& path : places) {
    if (store->memory_ != nullptr) break;
    store->memory_ = open_file(path, head, total);
    store->path_ = path;
  }
  for (std::size_t i = 0; i < places.size() && store->memory_ == nullptr; ++i) {
    (void)make_directories(places[i].parent_path(), 0700);
    const auto made = make_file(places[i], head, total, entries, pool, progress);
    if (!made) {
      log_warn("packed weights are not kept there", "reason={}", made.error().message);
      continue;
    }
    store->path_ = places[i];
    store->made_ = true;
    remove_outdated(places[i], "." + prefix_for(files, dense));
    store->memory_ = open_file(places[i], head, total);
  }
  if (store->memory_ == nullptr) {
    store->path_.clear();
    store->made_ = true;
    CAPSTAN_TRY(store->memory_, FileMemory::empty(total));
    std::uint8_t* memory = store->memory_->data();
    CAPSTAN_CHECK(pack_into(
        entries, pool, total, progress, [memory](std::uint64_t at, const std::vector<std::uint8_t>& bytes) {
          std::memcpy(memory + at, bytes.data(), bytes.size());
          return true;
        }));
  }
  weights.gate_up_inputs = dense == PackedType::kInt12 ? ActivationBits::k15 : ActivationBits::k8;
  for (const Entry& entry : entries) {
    std::uint8_t* data = store->memory_->data() + entry.at;
    if (entry.to != nullptr) {
      *entry.to = {entry.type, entry.from.rows, entry.from.cols, data};
    } else {
      weights.screen_doubts = {reinterpret_cast<const float*>(data), static_cast<std::size_t>(entry.from.rows)};
    }
  }
  const FileMemory::Range every_token{0, entries[listed.every_token].at};
  store->memory_->need(std::span(&every_token, 1), pool);
  store->head_ = {entries[listed.head].at, entries[listed.head].at + entries[listed.head].bytes};
  store->head_panel_bytes_ = entries[listed.head].panel_bytes();
  for (std::size_t i = listed.experts; i < entries.size(); i += 2)
    store->experts_.push_back({entries[i].at, entries[i + 1].at + entries[i + 1].bytes});
  store->experts_per_layer_ = store->experts_.size() / weights.layers.size();
  weights.need_experts = [store = store.get(), &pool](int layer, std::span<const int> experts) {
    store->need_experts(layer, experts, pool);
  };
  weights.need_head = [store = store.get(), &pool](std::span<const int> panels) { store->need_head(panels, pool); };
  return store;
}

void PackedStore::need_head(std::span<const int> panels, ThreadPool& pool) {
  needed_.clear();
  if (panels.empty()) needed_.push_back(head_);
  for (const int panel : panels) {
    const std::uint64_t begin = head_.begin + static_cast<std::uint64_t>(panel) * head_panel_bytes_;
    needed_.push_back({begin, begin + head_panel_bytes_});
  }
  memory_->need(needed_, pool);
}

void PackedStore::need_experts(int layer, std::span<const int> experts, ThreadPool& pool) {
  const auto first = experts_.begin() + layer * static_cast<std::ptrdiff_t>(experts_per_layer_);
  needed_.clear();
  for (const int expert : experts) needed_.push_back(first[expert]);
  memory_->need(needed_, pool);
}

}  // namespace capstan::engine
