// Layers of packages: what a template lists, installed once for each list, kept as a directory that sandboxes see read-only.
//
//   PackageLayers layers(data / "sessions/layers", install);
//   layers.keep_only(keys);                                                    // at the start: what no template lists goes
//   CAPSTAN_TRY(auto directory, layers.find(form, std::chrono::minutes(5)));   // installs it, the first time
//
// A layer's key says what it follows from: the list, where packages come from (of a directory of wheels also their names,
// sizes and times), and the root (its versions of Python). When one of these changes, another layer is made; sandboxes keep
// the one that they began with. What was asked for without a version stays as it was installed.
//
// Threads: every method from any thread; one of its own installs, one layer at a time.  Bounds: kLayerWaitersMax callers wait,
// each as long as it says.  Failure: kUnavailable (being made; could not be made, with the installer's last lines), kNotFound
// (no such directory of wheels). What failed is tried again by the next caller, after kLayerPauseMs at the earliest.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>

#include "agents/sessions/templates.h"

namespace capstan::agents {

inline constexpr int kLayerWaitersMax = 4;
inline constexpr std::int64_t kLayerPauseMs = 10'000;

Result<std::string> layer_key(const Template& form);

struct LayerState {
  enum class Kind { kAbsent, kMaking, kReady, kFailed };
  Kind kind = Kind::kAbsent;
  std::string text = {};  // of one that is being made, the installer's last line; of one that failed, why
};

class PackageLayers {
 public:
  using Progress = std::function<void(std::string_view line)>;
  // Fills a directory, which exists and is empty; ends soon once it is asked to stop.
  using Install = std::function<Result<void>(const Template& form, const std::filesystem::path& directory,
                                             const Progress& progress, std::stop_token stop)>;

  PackageLayers(std::filesystem::path directory, Install install);
  ~PackageLayers();  // an installation under way is stopped
  PackageLayers(const PackageLayers&) = delete;
  PackageLayers& operator=(const PackageLayers&) = delete;

  // While no sandbox uses any.
  void keep_only(const std::set<std::string>& keys);
  // The form's root is there, if it has one. Zero: does not wait, only sees to it that the layer is made.
  Result<std::filesystem::path> find(const Template& form, std::chrono::milliseconds wait);
  LayerState state(const Template& form) const;

 private:
  struct Layer {
    LayerState state = {};
    std::chrono::steady_clock::time_point since = {};  // of the state
  };
  struct Wanted {
    std::string key;
    Template form;
  };
  Layer& layer(const std::string& key) const;  // under mutex_
  void run(std::stop_token stop);
  Result<void> make(const Wanted& wanted, std::stop_token stop);

  const std::filesystem::path directory_;
  const Install install_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  mutable std::map<std::string, Layer> layers_;  // by key; what is on the disk is found when it is asked for
  std::deque<Wanted> wanted_;
  int waiters_ = 0;
  std::jthread thread_;
};

}  // namespace capstan::agents
