// Text: the few string functions that several rooms need.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace capstan {

std::string to_lower(std::string_view text);   // ASCII only
std::string_view trim(std::string_view text);  // spaces, tabs, CR, LF at both ends
std::vector<std::string_view> split(std::string_view text, char separator);  // keeps empty parts
std::vector<std::string_view> split(std::string&& text, char separator) = delete;  // the parts look into it
std::optional<std::int64_t> parse_int(std::string_view text);  // whole text, decimal, optional minus
std::string hex(std::span<const std::uint8_t> bytes);          // lower case

// Length in bytes (1 to 4) of the valid UTF-8 sequence at the start of `text`; 0 if there is none.
std::size_t utf8_sequence_length(std::string_view text);

// The candidate with the smallest edit distance to `word`, if that is at most a third of its length (at least
// 1), for "unknown key 'relicas'; did you mean 'replicas'?". Ties go to the earlier candidate.
std::optional<std::string_view> nearest(std::string_view word, std::span<const std::string_view> candidates);

}  // namespace capstan
