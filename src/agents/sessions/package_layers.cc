// How it works: layers/KEY is a layer, layers/KEY.json says what is in it; it is written last, so that a layer without it was
// interrupted and does not count.
#include "agents/sessions/package_layers.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/sha256.h"

namespace capstan::agents {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Kind = LayerState::Kind;

constexpr std::size_t kKeyChars = 32;

std::int64_t ms_since(Clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - time).count();
}

std::string stamp_of(const fs::path& path) {
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) return {};
  return fmt::format("{}/{}.{:09}", found.st_size, found.st_mtim.tv_sec, found.st_mtim.tv_nsec);
}

// What the packages must fit: of a root that is there, its versions of Python; of one that comes from an archive, the archive.
std::vector<std::string> root_marks(const Template& form) {
  if (!form.archive.empty()) return {form.archive, stamp_of(form.archive)};
  std::vector<std::string> marks;
  for (const char* place : {"usr/lib", "usr/local/lib"}) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator((form.root.empty() ? "/" : form.root) / place, error)) {
      const std::string name = entry.path().filename();
      if (name.starts_with("python3.")) marks.push_back(fmt::format("{}/{}", place, name));
    }
  }
  std::ranges::sort(marks);
  marks.push_back(form.root);
  if (const auto path = form.env.find("PATH"); path != form.env.end()) marks.push_back(path->second);
  return marks;
}

Result<std::vector<std::string>> wheel_marks(const std::string& directory) {
  std::vector<std::string> marks;
  if (directory.empty()) return marks;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error))
    marks.push_back(fmt::format("{}/{}", entry.path().string(), stamp_of(entry.path())));
  if (error) return fail(Code::kNotFound, "'packages.wheels': cannot list {}: {}", directory, error.message());
  std::ranges::sort(marks);
  return marks;
}

Json list_of(const std::vector<std::string>& all) {
  Json out = Json::array();
  for (const std::string& one : all) out.push_back(one);
  return out;
}

std::unexpected<Error> being_made(const std::string& name, const std::string& line) {
  return fail(Code::kUnavailable, "template {}: its packages are being installed{}; try again soon", name,
              line.empty() ? "" : " (" + line + ")");
}

}  // namespace

Result<std::string> layer_key(const Template& form) {
  auto wheels = wheel_marks(form.packages.wheels);
  if (!wheels) return std::unexpected(std::move(wheels.error()).with_context("template " + form.name));
  const Json all = Json::object({{"python", list_of(form.packages.python)},
                                 {"index", form.packages.index},
                                 {"wheels", list_of(*wheels)},
                                 {"root", list_of(root_marks(form))}});
  return sha256_hex(all.dump()).substr(0, kKeyChars);
}

PackageLayers::PackageLayers(fs::path directory, Install install)
    : directory_(std::move(directory)), install_(std::move(install)), thread_([this](std::stop_token stop) { run(stop); }) {}

PackageLayers::~PackageLayers() {
  thread_.request_stop();
  thread_.join();
}

void PackageLayers::keep_only(const std::set<std::string>& keys) {
  std::error_code error;
  std::vector<fs::path> gone;
  for (const auto& entry : fs::directory_iterator(directory_, error)) {
    if (!keys.contains(entry.path().stem())) gone.push_back(entry.path());
  }
  std::ranges::sort(gone, std::greater());  // KEY.json before KEY
  for (const fs::path& path : gone) fs::remove_all(path, error);
}

PackageLayers::Layer& PackageLayers::layer(const std::string& key) const {
  const auto [found, is_new] = layers_.try_emplace(key);
  if (is_new && fs::exists(directory_ / (key + ".json"))) found->second.state.kind = Kind::kReady;
  return found->second;
}

LayerState PackageLayers::state(const Template& form) const {
  const auto key = layer_key(form);
  if (!key) return {Kind::kFailed, key.error().message};
  const std::lock_guard lock(mutex_);
  return layer(*key).state;
}

Result<fs::path> PackageLayers::find(const Template& form, std::chrono::milliseconds wait) {
  CAPSTAN_TRY(const std::string key, layer_key(form));
  std::unique_lock lock(mutex_);
  Layer& layer = this->layer(key);
  if (layer.state.kind == Kind::kReady) return directory_ / key;
  const bool again = layer.state.kind == Kind::kFailed && ms_since(layer.since) >= kLayerPauseMs;
  if (layer.state.kind == Kind::kAbsent || again) {
    layer = {{Kind::kMaking, {}}, Clock::now()};
    wanted_.push_back({key, form});
    changed_.notify_all();
  }
  if (layer.state.kind == Kind::kMaking && wait.count() > 0) {
    if (waiters_ >= kLayerWaitersMax) return being_made(form.name, layer.state.text);
    ++waiters_;
    changed_.wait_for(lock, wait, [&] { return layer.state.kind != Kind::kMaking; });
    --waiters_;
  }
  if (layer.state.kind == Kind::kReady) return directory_ / key;
  if (layer.state.kind == Kind::kMaking) return being_made(form.name, layer.state.text);
  return fail(Code::kUnavailable, "template {}: its packages could not be installed: {}", form.name, layer.state.text);
}

void PackageLayers::run(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [&] { return !wanted_.empty(); }) && !stop.stop_requested()) {
    const Wanted wanted = std::move(wanted_.front());
    wanted_.pop_front();
    lock.unlock();
    const auto made = make(wanted, stop);
    if (!made) log_error("cannot install packages", "template={} error=\"{}\"", wanted.form.name, made.error().message);
    lock.lock();
    layers_[wanted.key] = {made ? LayerState{Kind::kReady} : LayerState{Kind::kFailed, made.error().message}, Clock::now()};
    changed_.notify_all();
  }
  for (auto& [key, layer] : layers_) {
    if (layer.state.kind == Kind::kMaking) layer.state = {Kind::kFailed, "the server stops"};
  }
  changed_.notify_all();
}

Result<void> PackageLayers::make(const Wanted& wanted, std::stop_token stop) {
  const fs::path place = directory_ / wanted.key;
  log_info("installing packages", "template={} layer={}", wanted.form.name, wanted.key);
  std::error_code ignored;
  fs::remove_all(place, ignored);
  const auto progress = [&](std::string_view line) {
    const std::lock_guard lock(mutex_);
    layers_[wanted.key].state.text = line;
  };
  auto done = [&]() -> Result<void> {
    CAPSTAN_CHECK(make_directories(directory_, 0700));
    CAPSTAN_CHECK(make_directories(place, 0755));
    CAPSTAN_CHECK(install_(wanted.form, place, progress, stop));
    const Json about = Json::object({{"template", wanted.form.name}, {"python", list_of(wanted.form.packages.python)}});
    return write_file_atomic(directory_ / (wanted.key + ".json"), about.dump() + "\n", 0600);
  }();
  if (!done) fs::remove_all(place, ignored);
  return done;
}

}  // namespace capstan::agents
