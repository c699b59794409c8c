// How it works: create() reserves its place first, so that slow creations cannot pass a limit together. The keeper wakes
// at least every second: it ends or pauses what is over time, drops what died, samples usage, closes records' parts.
#include "agents/sessions/session_manager.h"

#include <algorithm>
#include <chrono>

#include "agents/sessions/interpreter.h"
#include "agents/sessions/pip.h"
#include "base/file.h"
#include "base/log.h"
#include "base/sha256.h"

namespace capstan::agents {
namespace {

constexpr auto kKeepEvery = std::chrono::milliseconds(200);
constexpr auto kPackagesWait = std::chrono::minutes(10);

constexpr std::size_t kSavedAtSamplesMax = 10'000;

bool is_open_to(const Session& session, const Owner& owner) {
  return session.terms().owner.project == owner.project || (owner.operates && session.terms().placed);
}

}  // namespace

SessionManager::SessionManager(ManagerOptions options)
    : options_(std::move(options)),
      templates_(options_.directory),
      lookups_(std::make_shared<Lookups>(options_.resolve)),
      usage_file_(options_.directory / "usage.json"),
      records_(usage_file_.load()),
      records_first_(unix_ms() * 1'000),
      layers_(make_layers()),
      thread_([this] { keep(); }) {}

// What no template lists any more goes.
std::unique_ptr<PackageLayers> SessionManager::make_layers() {
  const auto install = [this](const Template& form, const std::filesystem::path& directory,
                              const PackageLayers::Progress& progress, std::stop_token stop) -> Result<void> {
    CAPSTAN_TRY(sandbox::Launcher * launcher, launcher());
    return install_python({*launcher, *loop_, lookups_}, form, directory, progress, stop);
  };
  auto layers = std::make_unique<PackageLayers>(options_.directory / "layers", install);
  std::set<std::string> keys;
  for (const std::string& name : templates_.names()) {
    const auto form = templates_.read(name);
    if (!form || form->packages.empty()) continue;
    if (const auto key = layer_key(*form)) keys.insert(*key);
  }
  layers->keep_only(keys);
  return layers;
}

SessionManager::~SessionManager() {
  {
    const std::lock_guard lock(mutex_);
    leaving_ = true;
    changed_.notify_all();
  }
  thread_.join();
  pool_.reset();
  layers_.reset();
  close();
  launcher_.reset();
}

void SessionManager::run_on(http::EventLoop& loop) {
  loop_ = &loop;
  const auto forms = [this] {
    {
      const std::lock_guard lock(launcher_mutex_);
      if (refused_) return std::vector<Template>{};
    }
    std::vector<Template> whole;
    for (Template& form : templates_.warm()) {
      if (auto found = with_packages(std::move(form), {})) whole.push_back(std::move(*found));
    }
    return whole;
  };
  const auto room = [this] {
    const std::lock_guard lock(mutex_);
    return options_.limits.sessions_max - std::min(options_.limits.sessions_max, count());
  };
  pool_ = std::make_unique<WarmPool>(
      WarmPool::World{.forms = forms, .make = [this](const Template& form) { return make_ahead(form); }, .room = room});
}

Result<sandbox::Launcher*> SessionManager::launcher() {
  const std::lock_guard lock(launcher_mutex_);
  if (refused_) return std::unexpected(*refused_);
  if (launcher_) return launcher_.get();
  auto started = sandbox::Launcher::start({.instance = options_.instance, .program = options_.launcher_program});
  if (started) {
    launcher_ = std::move(*started);
    return launcher_.get();
  }
  Error error = std::move(started.error());
  if (error.code == Code::kUnsupported) {
    error.message += "; `capstan sandbox check` lists what this host can enforce";
    refused_ = error;
  }
  return std::unexpected(std::move(error));
}

Result<void> SessionManager::check() {
  if (const auto started = launcher(); !started) return std::unexpected(started.error());
  return {};
}

Result<void> SessionManager::check_timeout(std::int64_t timeout_ms) const {
  if (timeout_ms >= 0 && timeout_ms <= options_.limits.timeout_ms_max) return {};
  return fail(Code::kInvalid, "a timeout of {} s; it must be between 0 and {} s", timeout_ms / 1000,
              options_.limits.timeout_ms_max / 1000);
}

std::size_t SessionManager::count() const {
  std::size_t all = sessions_.size();
  for (const auto& [project, making] : being_made_) all += making;
  return all;
}

Result<void> SessionManager::admit(const Owner& owner) const {
  if (retired_) return fail(Code::kUnavailable, "the session host makes room for a newer build; try again in a moment");
  const std::size_t all = count();
  const auto making = being_made_.find(owner.project);
  std::size_t of_project = making == being_made_.end() ? 0 : making->second;
  for (const auto& [id, session] : sessions_) {
    // What the scheduler placed is bounded by its tenant's quota.
    of_project += session->terms().owner.project == owner.project && !session->terms().placed ? 1 : 0;
  }
  if (all >= options_.limits.sessions_max)
    return fail(Code::kExhausted, "this host has {} sandboxes, the most that it may", all);
  if (of_project >= options_.limits.sessions_of_project_max)
    return fail(Code::kExhausted, "the project has {} sandboxes, the most that it may; end some", of_project);
  return {};
}

Result<SessionPtr> SessionManager::create(SessionTerms terms) {
  if (!terms.placed) CAPSTAN_CHECK(check_timeout(terms.timeout_ms));
  if (loop_ == nullptr) return fail(Code::kUnavailable, "the server does not run yet");
  CAPSTAN_CHECK(check());
  CAPSTAN_TRY(Template form, templates_.find(terms.template_name, terms.owner));
  terms.template_name = form.name;
  CAPSTAN_TRY(form, with_packages(std::move(form), kPackagesWait));
  if (!terms.snapshot.empty()) {
    CAPSTAN_TRY(const Template files, templates_.find(terms.snapshot, terms.owner));
    form.snapshot = files.snapshot;
  }
  if (terms.placed) {
    form.limits.memory_bytes = terms.placed->memory_bytes;
    form.limits.milli_cpus = terms.placed->milli_cpus;
  }
  CAPSTAN_TRY(HostRules hosts, form.network.grant(terms.network));
  const Owner owner = terms.owner;
  {
    const std::lock_guard lock(mutex_);
    CAPSTAN_CHECK(admit(owner));
    if (terms.placed && named(terms.placed->name) != nullptr)
      return fail(Code::kConflict, "there is a sandbox {} already", terms.placed->name);
    ++being_made_[owner.project];
  }
  auto made = [&]() -> Result<SessionPtr> {
    // Those that wait have the template's limits.
    CAPSTAN_TRY(SessionPtr session, terms.placed ? make(form) : take(form));
    session->begin(std::move(terms), std::move(hosts));
    if (!form.snapshot.empty()) CAPSTAN_CHECK(templates_.restore(form, *session));
    return session;
  }();
  const std::lock_guard lock(mutex_);
  if (--being_made_[owner.project] == 0) being_made_.erase(owner.project);
  if (made) sessions_[(*made)->id()] = *made;
  return made;
}

Result<Template> SessionManager::with_packages(Template form, std::chrono::milliseconds wait) {
  if (form.packages.empty()) return form;
  CAPSTAN_TRY(form.layer, layers_->find(form, wait));
  form.version += form.layer.string();
  return form;
}

// One that was made ahead, or a new one.
Result<SessionPtr> SessionManager::take(const Template& form) {
  SessionPtr session = pool_->take(form);
  pool_->make_room();
  if (session) return session;
  return make(form);
}

// With a Python that waits for its first code. Where there is none, code says so when it is asked for.
Result<SessionPtr> SessionManager::make_ahead(const Template& form) {
  CAPSTAN_TRY(SessionPtr session, make(form));
  (void)session->interpreter().start_ahead();
  return session;
}

Result<SessionPtr> SessionManager::make(const Template& form) {
  CAPSTAN_TRY(sandbox::Launcher * launcher, launcher());
  sandbox::SandboxSpec spec{.limits = form.limits, .template_root = form.root.string()};
  if (!form.network.empty()) {
    spec.network = sandbox::Network::kNamespace;
    spec.listen_port = kEgressPort;
  }
  if (!form.layer.empty()) spec.binds.push_back({.host_path = form.layer.string(), .path = std::string(kPackagesPath)});
  SessionParts parts{.limits = form.limits, .network = form.network, .packages = !form.layer.empty()};
  CAPSTAN_TRY(parts.sandbox, launcher->create(spec));
  if (sandbox::Fd listener(parts.sandbox->take_listener()); listener)
    parts.egress = Egress::start(*loop_, lookups_, std::move(listener), {});
  return std::make_shared<Session>(*loop_, std::move(parts), form.env);
}

std::vector<SessionPtr> SessionManager::all() const {
  const std::lock_guard lock(mutex_);
  std::vector<SessionPtr> all;
  for (const auto& [id, session] : sessions_) all.push_back(session);
  return all;
}

std::vector<SessionPtr> SessionManager::list(const Owner& owner) const {
  std::vector<SessionPtr> mine = all();
  std::erase_if(mine, [&](const SessionPtr& one) { return !is_open_to(*one, owner); });
  std::sort(mine.begin(), mine.end(), [](const SessionPtr& a, const SessionPtr& b) {
    return std::pair(a->started_ms(), a->id()) < std::pair(b->started_ms(), b->id());
  });
  return mine;
}

Result<SessionPtr> SessionManager::find(const std::string& id, const Owner& owner) const {
  const std::lock_guard lock(mutex_);
  SessionPtr found = named(id);
  // Another project's is as good as none.
  if (!found || !is_open_to(*found, owner))
    return fail(Code::kNotFound, "there is no sandbox {}", id);
  return found;
}

SessionPtr SessionManager::named(const std::string& id) const {
  if (const auto found = sessions_.find(id); found != sessions_.end()) return found->second;
  for (const auto& [own, session] : sessions_) {
    if (session->terms().placed && session->terms().placed->name == id) return session;
  }
  return nullptr;
}

Result<SessionPtr> SessionManager::find(const std::string& id, std::string_view token) const {
  const std::lock_guard lock(mutex_);
  SessionPtr found = named(id);
  if (!found) return fail(Code::kUnavailable, "there is no sandbox {}; it may have ended", id);
  if (!equal_constant_time(found->token(), token))
    return fail(Code::kDenied, "the access token is not that of sandbox {}", id);
  return found;
}

Result<void> SessionManager::end(const std::string& id, const Owner& owner) {
  CAPSTAN_TRY(const SessionPtr session, find(id, owner));
  finish(session, SessionEnd::kAsked);
  return {};
}

// Its last sample is taken while it still lives.
void SessionManager::finish(const SessionPtr& session, SessionEnd how) {
  {
    const std::lock_guard lock(mutex_);
    if (sessions_.erase(session->id()) == 0) return;
  }
  const std::int64_t now_ms = unix_ms();
  store::ComputeRecord used = session->take_usage(now_ms);
  session->end();
  {
    const std::lock_guard lock(mutex_);
    records_.push_back(std::move(used));
  }
  if (options_.on_end) options_.on_end(*session, how);
}

void SessionManager::keep() {
  std::unique_lock lock(mutex_);
  while (!leaving_) {
    changed_.wait_for(lock, kKeepEvery, [&] { return leaving_; });
    if (leaving_) return;
    lock.unlock();
    keep_once(unix_ms());
    lock.lock();
  }
}

void SessionManager::keep_once(std::int64_t now_ms) {
  const bool sample = now_ms - sampled_ms_ >= options_.limits.sample_every_ms;
  const bool record = now_ms - recorded_ms_ >= options_.limits.record_every_ms;
  if (sample) sampled_ms_ = now_ms;
  if (record) recorded_ms_ = now_ms;
  for (const auto& session : all()) {
    if (!session->alive()) {
      finish(session, SessionEnd::kDied);
      continue;
    }
    if (session->state() == Session::State::kRunning && session->ends_ms() <= now_ms) {
      if (!session->terms().pause_at_end || !session->pause()) finish(session, SessionEnd::kTimeout);
      continue;
    }
    if (sample && !record) session->sample(now_ms);
    if (!record) continue;
    store::ComputeRecord used = session->take_usage(now_ms);
    const std::lock_guard lock(mutex_);
    records_.push_back(std::move(used));
  }
  if (sample || record) save_usage(record);
  const std::lock_guard lock(mutex_);
  if (records_.size() <= options_.limits.usage_records_max) return;
  const std::size_t over = records_.size() - options_.limits.usage_records_max;
  log_error("usage of sandboxes is lost: nobody fetched it", "records={}", over);
  records_.erase(records_.begin(), records_.begin() + static_cast<std::ptrdiff_t>(over));
  records_first_ += static_cast<std::int64_t>(over);
}

// What is not settled, and what those that live have used as of their last sample. While nobody fetches, the file is long, and
// written with each record only.
void SessionManager::save_usage(bool record) {
  std::vector<store::ComputeRecord> all;
  {
    const std::lock_guard lock(mutex_);
    if (!record && records_.size() > kSavedAtSamplesMax) return;
    all = records_;
    for (const auto& [id, session] : sessions_) all.push_back(session->open_usage());
  }
  const std::lock_guard lock(usage_file_mutex_);
  usage_file_.save(all);
}

void SessionManager::close() {
  std::map<std::string, SessionPtr> left;
  {
    const std::lock_guard lock(mutex_);
    left.swap(sessions_);
  }
  for (const auto& [id, session] : left) {
    store::ComputeRecord used = session->take_usage(unix_ms());
    session->end();
    const std::lock_guard lock(mutex_);
    records_.push_back(std::move(used));
  }
  save_usage(true);
}

bool SessionManager::retire() {
  const std::lock_guard lock(mutex_);
  retired_ = retired_ || count() == 0;
  return retired_;
}

bool SessionManager::is_retired() const {
  const std::lock_guard lock(mutex_);
  return retired_;
}

SessionManager::UsageBatch SessionManager::usage(std::size_t records_max) const {
  const std::lock_guard lock(mutex_);
  const std::size_t count = std::min(records_max, records_.size());
  return {records_first_ + static_cast<std::int64_t>(count) - 1,
          {records_.begin(), records_.begin() + static_cast<std::ptrdiff_t>(count)}};
}

void SessionManager::settle(std::int64_t last) {
  const std::lock_guard lock(mutex_);
  const std::int64_t count = std::clamp<std::int64_t>(last - records_first_ + 1, 0, std::ssize(records_));
  records_.erase(records_.begin(), records_.begin() + count);
  records_first_ += count;
}

}  // namespace capstan::agents
