// PCRE2 knows Unicode's tables: the property is searched in a text of all characters, once, and kept.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>

#include "engine/grammar/regex.h"

namespace capstan::engine {
namespace {

void append_utf8(std::string& out, std::uint32_t point) {
  if (point < 0x80) {
    out += static_cast<char>(point);
    return;
  }
  const int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  static constexpr unsigned kLead[] = {0, 0xC0, 0xE0, 0xF0};
  out += static_cast<char>(kLead[more] | point >> (6 * more));
  for (int i = more - 1; i >= 0; --i) out += static_cast<char>(0x80 | (point >> (6 * i) & 0x3F));
}

// ECMAScript's names for what PCRE2 knows by one or two letters.
std::string pcre_name(std::string_view name) {
  static const std::map<std::string_view, std::string_view> kLong = {{"Letter", "L"},
                                                                     {"Lowercase_Letter", "Ll"},
                                                                     {"Uppercase_Letter", "Lu"},
                                                                     {"Titlecase_Letter", "Lt"},
                                                                     {"Modifier_Letter", "Lm"},
                                                                     {"Other_Letter", "Lo"},
                                                                     {"Mark", "M"},
                                                                     {"Number", "N"},
                                                                     {"Decimal_Number", "Nd"},
                                                                     {"Punctuation", "P"},
                                                                     {"Symbol", "S"},
                                                                     {"Separator", "Z"},
                                                                     {"Space_Separator", "Zs"},
                                                                     {"Other", "C"},
                                                                     {"Control", "Cc"},
                                                                     {"Alphabetic", "L"}};
  for (const std::string_view prefix : {"Script=", "sc=", "General_Category=", "gc=", "Is"})
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  const auto found = kLong.find(name);
  return std::string(found != kLong.end() ? found->second : name);
}

Result<CodePointSet> search(const std::string& name) {
  const std::string pattern = "\\p{" + name + "}+";
  int code = 0;
  std::size_t offset = 0;
  const std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> compiled(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF, &code, &offset,
                    nullptr),
      pcre2_code_free);
  if (!compiled) return fail(Code::kInvalid, "'\\p{{{}}}' is no property that is known", name);
  (void)pcre2_jit_compile(compiled.get(), PCRE2_JIT_COMPLETE);
  std::string text;
  std::vector<std::uint32_t> points;
  for (std::uint32_t point = 0; point <= kCodePointMax; ++point) {
    if (point >= 0xD800 && point <= 0xDFFF) continue;
    append_utf8(text, point);
    points.push_back(point);
  }
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(compiled.get(), nullptr), pcre2_match_data_free);
  CodePointSet set;
  std::size_t at = 0, counted = 0, index = 0;  // `index` characters begin before byte `counted`
  const auto index_of = [&](std::size_t byte) {
    for (; counted < byte; ++counted) index += (static_cast<unsigned char>(text[counted]) & 0xC0) != 0x80;
    return index;
  };
  while (at < text.size() && pcre2_match(compiled.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                         text.size(), at, PCRE2_NO_UTF_CHECK, match.get(), nullptr) > 0) {
    const std::size_t* const ends = pcre2_get_ovector_pointer(match.get());
    const std::size_t first = index_of(ends[0]), behind = index_of(ends[1]);
    set.push_back({points[first], points[behind - 1]});
    at = ends[1];
  }
  return normalised(std::move(set));
}

}  // namespace

Result<CodePointSet> unicode_property(std::string_view name) {
  static std::mutex mutex;
  static std::map<std::string, CodePointSet> kept;
  const std::string key = pcre_name(name);
  if (key.size() > 40 || !std::ranges::all_of(key, [](char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }))
    return fail(Code::kInvalid, "'\\p{{{}}}' is no property that is known", name);
  const std::lock_guard lock(mutex);
  if (const auto known = kept.find(key); known != kept.end()) return known->second;
  CAPSTAN_TRY(CodePointSet set, search(key));
  return kept.emplace(key, std::move(set)).first->second;
}

}  // namespace capstan::engine
