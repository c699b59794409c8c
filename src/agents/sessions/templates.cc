// How it works: a snapshot is a directory, PROJECT/ID, with about.json and home/; about.json is written last, so that one
// without it was interrupted and does not count.
#include "agents/sessions/templates.h"

#include <algorithm>

#include "agents/sessions/file_tree.h"
#include "agents/sessions/session.h"
#include "base/file.h"
#include "base/json.h"

namespace capstan::agents {
namespace {

namespace fs = std::filesystem;

constexpr int kIdBytes = 10;
constexpr std::string_view kSnapshotBegins = "snap-";
constexpr std::uint64_t kAboutBytesMax = 1 << 20;

sandbox::BoxLimits default_limits() {
  return {.memory_bytes = 512 << 20,
          .milli_cpus = 1000,
          .pids = 256,
          .tmpfs_bytes = 256 << 20,
          .tmpfs_inodes = 65'536,
          .open_files = 1024};
}

bool is_name(std::string_view name) {
  constexpr std::size_t kNameMax = 64;
  return !name.empty() && name.size() <= kNameMax && name[0] != '.' && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  });
}

Result<void> take(const Json& json, const std::string& name, Template& form) {
  for (const auto& [member, value] : json.members()) {
    const auto wrong = [&](std::string_view right) {
      return fail(Code::kInvalid, "template {}: '{}' must be {}", name, member, right);
    };
    const bool positive = value.is_int() && value.as_int() > 0;
    if (member == "root") {
      if (!value.is_string() || !value.as_string().starts_with('/')) return wrong("a directory's absolute path");
      form.root = value.as_string();
    } else if (member == "tarball") {
      if (!value.is_string() || !value.as_string().starts_with('/')) return wrong("a tar archive's absolute path");
      form.archive = value.as_string();
    } else if (member == "memory_mib" || member == "disk_mib" || member == "pids" || member == "files") {
      if (!positive) return wrong("a positive integer");
      if (member == "memory_mib") form.limits.memory_bytes = value.as_int() << 20;
      if (member == "disk_mib") form.limits.tmpfs_bytes = value.as_int() << 20;
      if (member == "pids") form.limits.pids = value.as_int();
      if (member == "files") form.limits.tmpfs_inodes = value.as_int();
    } else if (member == "warm") {
      if (!value.is_int() || value.as_int() < 0 || value.as_int() > static_cast<std::int64_t>(kWarmOfTemplateMax))
        return wrong(fmt::format("between 0 and {}", kWarmOfTemplateMax));
      form.warm = static_cast<std::size_t>(value.as_int());
    } else if (member == "cpus") {
      if (!value.is_number() || value.as_double() <= 0) return wrong("a positive number");
      form.limits.milli_cpus = static_cast<std::int64_t>(value.as_double() * 1000);
    } else if (member == "packages") {
      auto packages = packages_of(value);
      if (!packages) return std::unexpected(std::move(packages.error()).with_context("template " + name));
      form.packages = std::move(*packages);
    } else if (member == "network") {
      auto network = network_of(value);
      if (!network) return std::unexpected(std::move(network.error()).with_context("template " + name));
      form.network = std::move(*network);
    } else if (member == "env" && value.is_object()) {
      for (const auto& [variable, text] : value.members()) {
        if (!text.is_string()) return wrong("an object of strings");
        form.env[variable] = text.as_string();
      }
    } else {
      return fail(Code::kInvalid,
                  "template {}: '{}' is unknown; there are root, tarball, packages, memory_mib, cpus, disk_mib, files, pids, "
                  "network, warm, env",
                  name, member);
    }
  }
  if (!form.root.empty() && !form.archive.empty())
    return fail(Code::kInvalid, "template {}: it has a root and a tarball; one of them would be right", name);
  return {};
}

}  // namespace

Templates::Templates(fs::path directory) : directory_(std::move(directory)), images_(directory_ / "roots") {
  std::vector<std::string> archives;
  for (const std::string& name : names()) {
    if (const auto form = read(name)) archives.push_back(form->archive);
  }
  images_.keep_only(archives);
}

Result<Template> Templates::read(const std::string& name) const {
  Template form{.name = name, .limits = default_limits()};
  const auto text = is_name(name) ? read_file(directory_ / "templates" / (name + ".json"), kAboutBytesMax)
                                  : fail(Code::kNotFound, "no name");
  if (!text) {
    if (name == "base" || name == "code-interpreter-v1") return form;
    return fail(Code::kNotFound, "there is no template '{}'; there are {}", name, fmt::join(names(), ", "));
  }
  auto json = Json::parse(*text);
  if (!json || !json->is_object())
    return fail(Code::kInvalid, "template {}: {}", name, json ? "must be an object" : json.error().message);
  CAPSTAN_CHECK(take(*json, name, form));
  form.version = *text;
  return form;
}

std::vector<std::string> Templates::names() const {
  std::vector<std::string> all = {"base", "code-interpreter-v1"};
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory_ / "templates", error)) {
    const std::string name = entry.path().stem().string();
    if (entry.path().extension() == ".json" && is_name(name) && std::ranges::find(all, name) == all.end())
      all.push_back(name);
  }
  std::ranges::sort(all);
  return all;
}

fs::path Templates::place_of(const Owner& owner) const {
  return directory_ / "snapshots" / std::to_string(owner.project);
}

Result<Template> Templates::find(const std::string& name, const Owner& owner) const {
  std::string form_name = name;
  fs::path snapshot;
  for (const Snapshot& one : snapshots(owner)) {
    if (one.id != name && (one.name.empty() || one.name != name)) continue;
    form_name = one.template_name;
    snapshot = place_of(owner) / one.id / "home";
    break;
  }
  CAPSTAN_TRY(Template form, read(form_name));
  form.snapshot = std::move(snapshot);
  return with_root(std::move(form));
}

Result<Template> Templates::with_root(Template form) const {
  if (form.archive.empty()) return form;
  auto root = images_.find(form.archive);
  if (!root) return std::unexpected(std::move(root.error()).with_context("template " + form.name));
  form.root = std::move(*root);
  form.version += form.root.string();
  return form;
}

std::vector<Template> Templates::warm() const {
  std::vector<Template> out;
  for (const std::string& name : names()) {
    auto form = read(name);
    if (!form || form->warm == 0) continue;
    if (auto whole = with_root(std::move(*form))) out.push_back(std::move(*whole));
  }
  return out;
}

std::vector<Snapshot> Templates::snapshots(const Owner& owner) const {
  std::vector<Snapshot> all;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(place_of(owner), error)) {
    const auto text = read_file(entry.path() / "about.json", kAboutBytesMax);
    const auto json = text ? Json::parse(*text) : fail(Code::kNotFound, "not finished");
    if (!json) continue;
    all.push_back({.id = entry.path().filename().string(),
                   .name = json->get_string("name").value_or(""),
                   .session = json->get_string("session").value_or(""),
                   .template_name = json->get_string("template").value_or("base"),
                   .made_ms = json->get_int("made_ms").value_or(0)});
  }
  std::ranges::sort(all, [](const Snapshot& a, const Snapshot& b) {
    return std::pair(a.made_ms, a.id) < std::pair(b.made_ms, b.id);
  });
  return all;
}

Result<std::string> Templates::snapshot(Session& session, const std::string& name) {
  if (!name.empty() && !is_name(name))
    return fail(Code::kInvalid, "a snapshot's name has 1 to 64 letters, digits, '-', '_' and '.'; '{}' does not", name);
  const std::lock_guard one(making_);
  const Owner owner = session.terms().owner;
  if (snapshots(owner).size() >= kSnapshotsOfProjectMax)
    return fail(Code::kExhausted, "the project has {} snapshots, the most that it may; remove some", kSnapshotsOfProjectMax);
  const std::string id = std::string(kSnapshotBegins) + random_hex(kIdBytes);
  const fs::path place = place_of(owner) / id;
  const auto made = [&]() -> Result<void> {
    CAPSTAN_CHECK(make_directories(place, 0700));
    CAPSTAN_CHECK(session.copy_home(place / "home"));
    const Json about = Json::object({{"name", name},
                                     {"session", session.id()},
                                     {"template", session.terms().template_name},
                                     {"made_ms", unix_ms()}});
    return write_file_atomic(place / "about.json", about.dump() + "\n", 0600);
  }();
  if (made) return id;
  std::error_code ignored;
  fs::remove_all(place, ignored);
  return std::unexpected(made.error());
}

Result<void> Templates::remove(const std::string& id, const Owner& owner) {
  for (const Snapshot& one : snapshots(owner)) {
    if (one.id != id) continue;
    std::error_code error;
    fs::remove(place_of(owner) / id / "about.json", error);
    fs::remove_all(place_of(owner) / id, error);
    if (error) return fail(Code::kIo, "cannot remove snapshot {}: {}", id, error.message());
    return {};
  }
  return fail(Code::kNotFound, "there is no snapshot {}", id);
}

Result<void> Templates::restore(const Template& form, Session& session) const {
  return session.fill_home(form.snapshot);
}

}  // namespace capstan::agents
