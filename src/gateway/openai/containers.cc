#include "gateway/openai/containers.h"

#include <algorithm>
#include <ctime>

#include "base/file.h"
#include "gateway/openai/endpoints.h"
#include "gateway/openai/responses_checks.h"
#include "gateway/openai/responses_state.h"
#include "http/multipart.h"

namespace capstan::gateway::openai {
namespace {

using Answer = std::expected<Json, ApiError>;

constexpr std::string_view kFilePrefix = "cfile_";
constexpr std::size_t kNameBytesMax = 256;

ApiError told(const Error& error) {
  switch (error.code) {
    case Code::kNotFound:
      return {.status = 404, .message = error.message};
    case Code::kExhausted:
      return {.status = 429, .message = error.message, .code = "container_limit_exceeded"};
    case Code::kInvalid:
      return {.message = error.message, .code = "invalid_value"};
    case Code::kUnsupported:
      return {.message = error.message, .code = "unsupported_tool"};
    default:
      return {.status = 503, .message = error.message, .type = "server_error", .code = "container_unavailable"};
  }
}

template <class T>
std::expected<T, ApiError> or_told(Result<T> result) {
  if (!result) return std::unexpected(told(result.error()));
  return *std::move(result);
}

Json container_json(const ContainerHost::Container& container) {
  Json expires = Json::object({{"anchor", "last_active_at"}, {"minutes", kContainerIdleMinutes}});
  return Json::object({{"id", container.id},
                       {"object", "container"},
                       {"created_at", container.created_at},
                       {"status", "running"},
                       {"expires_after", std::move(expires)},
                       {"last_active_at", container.last_active_at},
                       {"name", container.name}});
}

Json file_json(const std::string& container, const ContainerHost::File& file) {
  return Json::object({{"id", container_file_id(file.path)},
                       {"object", "container.file"},
                       {"created_at", file.modified_at},
                       {"bytes", file.bytes},
                       {"container_id", container},
                       {"path", file.path},
                       {"source", "assistant"}});
}

class Containers {
 public:
  Containers(ContainerHost* host, const FileStore& files) : host_(host), files_(files) {}

  Answer create(const http::Request& request, const Caller& caller) const {
    const auto body = Json::parse(request.body);
    if (!body || !body->is_object()) return std::unexpected(ApiError{.message = "the body must be a JSON object"});
    const auto name = body->get_string("name");
    if (!name) return std::unexpected(missing("name").error());
    if (name->size() > kNameBytesMax) return wrong("name", fmt::format("'name' may have {} bytes", kNameBytesMax));
    if (const auto checked = check_terms(*body); !checked) return std::unexpected(checked.error());
    std::vector<std::string> ids;
    if (const Json* given_ids = given(*body, "file_ids"); given_ids != nullptr) {
      if (!given_ids->is_array()) return std::unexpected(wrong_type("file_ids", "an array", *given_ids).error());
      for (const Json& id : given_ids->items()) ids.push_back(id.is_string() ? id.as_string() : "");
    }
    const std::string owner = owner_of(caller);
    for (const std::string& id : ids) {  // before there is a container
      if (const auto found = files_.find(owner, id); !found) return std::unexpected(told(found.error()));
    }
    const auto made = or_told(host_->create(caller, "cntr_" + random_hex(24), *name));
    if (!made) return std::unexpected(made.error());
    for (const std::string& id : ids) {
      if (const auto put = copy(caller, made->id, id); !put) {
        (void)host_->remove(caller, made->id);
        return std::unexpected(put.error());
      }
    }
    return container_json(*made);
  }

  http::Response list(const http::Request& request, const Caller& caller) const {
    const auto paging = paging_of(request, 20, 100);
    if (!paging) return to_response(paging.error());
    const auto all = or_told(host_->list(caller));
    if (!all) return to_response(all.error());
    Json::Array objects;
    for (const auto& container : *all) objects.push_back(container_json(container));
    return http::Response::json(200, page_of(std::move(objects), *paging));
  }

  Answer about(const http::Request& request, const Caller& caller) const {
    const auto found = or_told(host_->about(caller, request.param("id")));
    if (!found) return std::unexpected(found.error());
    return container_json(*found);
  }

  Answer remove(const http::Request& request, const Caller& caller) const {
    const std::string id = request.param("id");
    if (const auto removed = host_->remove(caller, id); !removed) return std::unexpected(told(removed.error()));
    return Json::object({{"id", id}, {"object", "container.deleted"}, {"deleted", true}});
  }

  // A form with the file, or {"file_id": "file-…"}.
  Answer add_file(const http::Request& request, const Caller& caller) const {
    const std::string id = request.param("id"), type = request.headers.get("content-type");
    if (!type.starts_with("multipart/form-data")) {
      const auto body = Json::parse(request.content());
      const auto file = body && body->is_object() ? body->get_string("file_id") : std::nullopt;
      if (!file) return std::unexpected(missing("file_id").error());
      return copy(caller, id, *file);
    }
    const auto parts = http::parse_multipart(type, request.content());
    if (!parts) return std::unexpected(told(parts.error()));
    const auto part = std::ranges::find(*parts, "file", &http::Part::name);
    if (part == parts->end()) return wrong("file", "the form has no part 'file'", "missing_required_parameter");
    const std::string name = plain_file_name(part->filename);
    return put(caller, id, name.empty() ? "file" : name, part->content);
  }

  http::Response files(const http::Request& request, const Caller& caller) const {
    const std::string id = request.param("id");
    const auto paging = paging_of(request, 20, 100);
    if (!paging) return to_response(paging.error());
    auto all = or_told(host_->files(caller, id));
    if (!all) return to_response(all.error());
    std::ranges::stable_sort(*all, {}, &ContainerHost::File::modified_at);
    Json::Array objects;
    for (const auto& file : *all) objects.push_back(file_json(id, file));
    return http::Response::json(200, page_of(std::move(objects), *paging));
  }

  Answer file(const http::Request& request, const Caller& caller) const {
    const std::string id = request.param("id"), path = container_file_path(request.param("file"));
    const auto all = or_told(host_->files(caller, id));
    if (!all) return std::unexpected(all.error());
    const auto found = std::ranges::find(*all, path, &ContainerHost::File::path);
    if (found == all->end()) return std::unexpected(no_file(request));
    return file_json(id, *found);
  }

  http::Response content(const http::Request& request, const Caller& caller) const {
    const std::string path = container_file_path(request.param("file"));
    if (path.empty()) return to_response(no_file(request));
    auto bytes = or_told(host_->read(caller, request.param("id"), path));
    if (!bytes) return to_response(bytes.error());
    return {.status = 200, .headers = {{"content-type", "application/octet-stream"}}, .body = *std::move(bytes)};
  }

  Answer remove_file(const http::Request& request, const Caller& caller) const {
    const std::string id = request.param("file"), path = container_file_path(id);
    if (path.empty()) return std::unexpected(no_file(request));
    const auto removed = host_->remove_file(caller, request.param("id"), path);
    if (!removed) return std::unexpected(told(removed.error()));
    return Json::object({{"id", id}, {"object", "container.file.deleted"}, {"deleted", true}});
  }

  bool there() const { return host_ != nullptr; }

 private:
  static ApiError no_file(const http::Request& request) {
    return {.status = 404, .message = fmt::format("No file with id '{}' is in the container.", request.param("file"))};
  }
  // What all containers have in common may be said, nothing else asked for.
  static std::expected<void, ApiError> check_terms(const Json& body) {
    if (const Json* expires = given(body, "expires_after")) {
      if (expires->get_string("anchor") != "last_active_at")
        return wrong("expires_after.anchor", "'expires_after.anchor' must be last_active_at");
      if (expires->get_int("minutes") != kContainerIdleMinutes)
        return wrong("expires_after.minutes",
                     fmt::format("'expires_after.minutes' must be {}: containers end after so many idle minutes",
                                 kContainerIdleMinutes),
                     "unsupported_parameter");
    }
    for (const std::string_view key : {"memory_limit", "network_policy", "skills"}) {
      if (given(body, key) != nullptr)
        return wrong(std::string(key),
                     fmt::format("'{}' is not served: containers have no network, and all the same memory; leave it out", key),
                     "unsupported_parameter");
    }
    return {};
  }
  Answer put(const Caller& caller, const std::string& id, const std::string& path, std::string_view bytes) const {
    const auto written = or_told(host_->write(caller, id, path, bytes));
    if (!written) return std::unexpected(written.error());
    Json file = file_json(id, *written);
    file["source"] = "user";
    return file;
  }
  Answer copy(const Caller& caller, const std::string& id, const std::string& file) const {
    const std::string owner = owner_of(caller);
    const auto about = or_told(files_.find(owner, file));
    if (!about) return std::unexpected(about.error());
    const auto content = or_told(files_.content(owner, file));
    if (!content) return std::unexpected(content.error());
    const std::string name = plain_file_name(about->get_string("filename").value_or(""));
    return put(caller, id, name.empty() ? file : name, (*content)->bytes());
  }

  ContainerHost* const host_;
  const FileStore& files_;
};

}  // namespace

std::string plain_file_name(std::string_view path) {
  std::string name(path.substr(path.find_last_of("/\\") + 1));
  std::erase_if(name, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
  return name == "." || name == ".." ? std::string() : name;
}

std::string container_file_id(std::string_view path) {
  std::string id(kFilePrefix);
  for (const unsigned char byte : path) id += fmt::format("{:02x}", byte);
  return id;
}

std::string container_file_path(std::string_view id) {
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  if (!id.starts_with(kFilePrefix)) return {};
  id.remove_prefix(kFilePrefix.size());
  std::string path;
  for (std::size_t i = 0; i + 1 < id.size(); i += 2) {
    const int high = digit(id[i]), low = digit(id[i + 1]);
    if (high < 0 || low < 0) return {};
    path += static_cast<char>(16 * high + low);
  }
  return id.size() % 2 == 0 ? path : std::string();
}

void add_containers(Gateway& gateway, ContainerHost* host, const FileStore& files) {
  const Containers containers(host, files);
  const auto add = [&](std::string method, std::string pattern, auto answer) {
    route(gateway, std::move(method), std::move(pattern), [=](const http::Request& request, const Caller& caller) {
      if (!containers.there()) return to_response(told({Code::kUnsupported, "this gateway has no sandboxes", {}}));
      if constexpr (std::is_same_v<decltype((containers.*answer)(request, caller)), Answer>) {
        return answer_of((containers.*answer)(request, caller));
      } else {
        return (containers.*answer)(request, caller);
      }
    });
  };
  const std::string all = "/v1/containers", one = all + "/{id}", inside = one + "/files", file = inside + "/{file}";
  gateway.allow_large_bodies("POST", all + "/", http::kUploadBytesMax);
  add("POST", all, &Containers::create);
  add("GET", all, &Containers::list);
  add("GET", one, &Containers::about);
  add("DELETE", one, &Containers::remove);
  add("POST", inside, &Containers::add_file);
  add("GET", inside, &Containers::files);
  add("GET", file, &Containers::file);
  add("GET", file + "/content", &Containers::content);
  add("DELETE", file, &Containers::remove_file);
}

}  // namespace capstan::gateway::openai
