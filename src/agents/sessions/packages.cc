#include "agents/sessions/packages.h"

#include <algorithm>
#include <cctype>

#include "http/message.h"

namespace capstan::agents {
namespace {

constexpr std::size_t kRequirementBytesMax = 500;
constexpr std::string_view kPyPi = "https://pypi.org/simple";
constexpr const char* kHostsOfPyPi[] = {"pypi.org:443", "files.pythonhosted.org:443"};

// Begins with a name, so that pip reads it as neither an option nor a file. The rest is pip's to judge.
bool is_requirement(const std::string& text) {
  return !text.empty() && text.size() <= kRequirementBytesMax && std::isalnum(static_cast<unsigned char>(text[0])) != 0 &&
         std::ranges::none_of(text, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; });
}

Result<std::vector<std::string>> strings_of(const std::string& member, const Json& value) {
  std::vector<std::string> out;
  const auto wrong = [&] { return fail(Code::kInvalid, "'packages.{}' must be a list of strings", member); };
  if (!value.is_array()) return wrong();
  for (const Json& one : value.items()) {
    if (!one.is_string()) return wrong();
    out.push_back(one.as_string());
  }
  return out;
}

Result<void> check_python(const std::vector<std::string>& all) {
  if (all.empty()) return fail(Code::kInvalid, "'packages.python' must list at least one package");
  if (all.size() > kPackagesMax)
    return fail(Code::kInvalid, "'packages.python' lists {} packages; at most {} are possible", all.size(), kPackagesMax);
  for (const std::string& one : all) {
    if (!is_requirement(one))
      return fail(Code::kInvalid, "'packages.python': '{}' is no requirement; right would be name, name==1.2 or name[extra]>=1",
                  one);
  }
  return {};
}

// An index's URL may hold a name and a password, which no message shall repeat.
Result<http::Url> url_of(std::string index) {
  const std::size_t host = index.find("://");
  const std::size_t at = host == index.npos ? index.npos : index.rfind('@', index.find('/', host + 3));
  if (at != index.npos && at > host) index.erase(host + 3, at - host - 2);
  return http::parse_url(index);
}

Result<HostRules> hosts_of(const std::string& index) {
  if (index.empty()) return HostRules{};
  if (index == kPyPi) return HostRules::parse({std::begin(kHostsOfPyPi), std::end(kHostsOfPyPi)});
  CAPSTAN_TRY(const http::Url url, url_of(index));
  return HostRules::parse({fmt::format("{}:{}", url.host, url.port)});
}

}  // namespace

Result<PackageList> packages_of(const Json& json) {
  if (!json.is_object()) return fail(Code::kInvalid, "'packages' must be an object with python, index, wheels, allow");
  PackageList out;
  std::vector<std::string> allow;
  for (const auto& [member, value] : json.members()) {
    if (member == "python") {
      CAPSTAN_TRY(out.python, strings_of(member, value));
    } else if (member == "allow") {
      CAPSTAN_TRY(allow, strings_of(member, value));
    } else if (member == "index") {
      if (!value.is_string() || !url_of(value.as_string()))
        return fail(Code::kInvalid, "'packages.index' must be the URL of a package index, as {}", kPyPi);
      out.index = value.as_string();
    } else if (member == "wheels") {
      if (!value.is_string() || !value.as_string().starts_with('/'))
        return fail(Code::kInvalid, "'packages.wheels' must be a directory's absolute path");
      out.wheels = value.as_string();
    } else if (member == "debian") {
      return fail(Code::kInvalid,
                  "'packages.debian' is not offered: a sandbox is never root, and Debian's packages want to be. Right would be "
                  "a 'root' or 'tarball' that has them (debootstrap --include=…, an image's export)");
    } else {
      return fail(Code::kInvalid, "'packages.{}' is unknown; there are python, index, wheels, allow", member);
    }
  }
  CAPSTAN_CHECK(check_python(out.python));
  if (out.index.empty() && out.wheels.empty()) out.index = kPyPi;
  if (out.index.empty() && !allow.empty())
    return fail(Code::kInvalid, "'packages.allow' without an index: wheels of this host need no network");
  CAPSTAN_TRY(out.allow, allow.empty() ? hosts_of(out.index) : HostRules::parse(allow));
  return out;
}

}  // namespace capstan::agents
