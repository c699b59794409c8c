// A lexer of JSON with a stack of the arrays that are watched. What is read belongs to the items of all of
// them.
#include "engine/grammar/unique_items.h"

#include "engine/grammar/schema_values.h"

namespace capstan::engine {
namespace {

// Its characters stand for themselves.
bool is_plain_string(std::string_view text) {
  return text.starts_with('"') && text.find('\\') == std::string_view::npos;
}

bool is_same(const std::string& a, const std::string& b) {
  if (a == b) return true;
  if (is_plain_string(a) && is_plain_string(b)) return false;
  if (a.starts_with('"') != b.starts_with('"')) return false;
  const auto left = Json::parse(a), right = Json::parse(b);
  return left && right && same_value(*left, *right);
}

}  // namespace

bool UniqueItems::has_items() const {
  for (const Array& array : open_)
    if (array.items != nullptr) return true;
  return false;
}

bool UniqueItems::repeats(const Array& array) {
  if (array.item.empty()) return false;
  for (const Item* item = array.items.get(); item != nullptr; item = item->before.get())
    if (is_same(item->text, array.item)) return true;
  return false;
}

// The item has ended; false if it is a repetition.
bool UniqueItems::keep(Array& array) {
  if (repeats(array)) return false;
  if (!array.item.empty())
    array.items = std::make_shared<const Item>(Item{std::move(array.item), array.items});
  array.item.clear();
  return true;
}

void UniqueItems::append(char byte, std::size_t arrays) {
  for (std::size_t i = 0; i < arrays; ++i) open_[i].item += byte;
}

bool UniqueItems::read_in_string(char byte) {
  append(byte, open_.size());
  if (escaped_) {
    escaped_ = false;
  } else if (byte == '\\') {
    escaped_ = true;
  } else if (byte == '"') {
    in_string_ = false;
    return !would_repeat();
  }
  return true;
}

bool UniqueItems::read_closing(char byte) {
  if (depth_ == open_.back().depth) {
    if (!keep(open_.back())) return false;
    open_.pop_back();
  }
  append(byte, open_.size());
  --depth_;
  return !would_repeat();
}

bool UniqueItems::read(char byte, bool opens) {
  if (open_.empty()) {
    if (!opens || byte != '[') return true;
    depth_ = 1;
    open_.push_back({.depth = 1});
    return true;
  }
  if (in_string_) return read_in_string(byte);
  const bool between = between_items();
  switch (byte) {
    case '"':
      in_string_ = true;
      append(byte, open_.size());
      return true;
    case '[':
    case '{':
      append(byte, open_.size());
      ++depth_;
      if (opens && byte == '[') open_.push_back({.depth = depth_});
      return true;
    case ']':
    case '}':
      return read_closing(byte);
    case ',':
      append(byte, open_.size() - between);
      return !between || keep(open_.back());
    case ' ':
    case '\n':
      append(byte, open_.size() - between);
      return true;
    default:
      append(byte, open_.size());
      break;
  }
  // A word is complete with its last letter; a number may go on.
  const std::string& item = open_.back().item;
  return !(between && (item == "true" || item == "false" || item == "null") && repeats(open_.back()));
}

}  // namespace capstan::engine
