#include "gateway/bedrock/model_id.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

namespace capstan::gateway::bedrock {
namespace {

bool is_digits(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

// "openai.gpt-oss-20b-1:0" → "openai", "gpt-oss-20b": what stands before the first dot, and without "-1:0" or
// "-v1:0".
std::pair<std::string_view, std::string_view> provider_and_name(std::string_view id) {
  const auto dot = id.find('.');
  const std::string_view provider = dot == std::string_view::npos ? std::string_view() : id.substr(0, dot);
  std::string_view name = dot == std::string_view::npos ? id : id.substr(dot + 1);
  const auto colon = name.rfind(':');
  if (colon == std::string_view::npos || !is_digits(name.substr(colon + 1))) return {provider, name};
  name = name.substr(0, colon);
  const auto dash = name.rfind('-');
  if (dash == std::string_view::npos) return {provider, name};
  std::string_view version = name.substr(dash + 1);
  if (version.starts_with('v')) version.remove_prefix(1);
  if (is_digits(version)) name = name.substr(0, dash);
  return {provider, name};
}

}  // namespace

bool is_model_id(std::string_view text) {
  constexpr std::size_t kBytesMax = 2048;
  const auto allowed = [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("-_.:/@+").contains(static_cast<char>(c));
  };
  return text.size() <= kBytesMax && std::ranges::all_of(text, allowed);
}

std::vector<std::string> served_names(std::string_view model_id) {
  std::vector<std::string> names;
  const auto add = [&](std::string name) {
    if (!name.empty() && std::ranges::find(names, name) == names.end()) names.push_back(std::move(name));
  };
  add(std::string(model_id));
  std::string_view id = model_id;
  if (id.starts_with("arn:")) {
    const auto slash = id.find('/');
    id = slash == std::string_view::npos ? std::string_view() : id.substr(slash + 1);
    add(std::string(id));
  }
  // A cross-region profile: "us.openai.gpt-oss-20b-1:0".
  constexpr std::array<std::string_view, 5> kProfiles = {"us.", "eu.", "apac.", "global.", "us-gov."};
  for (const std::string_view profile : kProfiles) {
    if (id.starts_with(profile)) id.remove_prefix(profile.size());
  }
  add(std::string(id));
  const auto [provider, name] = provider_and_name(id);
  add(std::string(name));
  if (!provider.empty()) add(fmt::format("{}/{}", provider, name));
  return names;
}

std::string model_arn(std::string_view region, std::string_view model_id) {
  return fmt::format("arn:aws:bedrock:{}::foundation-model/{}", region, model_id);
}

}  // namespace capstan::gateway::bedrock
