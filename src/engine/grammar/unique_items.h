// UniqueItems: what the items of arrays with uniqueItems are so far, so that none is written twice. A grammar
// cannot know this.
//
//   UniqueItems items;
//   for (char byte : text)
//     if (!items.read(byte, opens)) …  // this byte completes an item that equals one before
//
// It follows the text from the `[` of such an array (`opens`, which the automaton knows) to its `]`, arrays
// within arrays too. Items are compared as JSON values: 1 equals 1.0, and blanks and escapes do not matter.
// Copies are cheap: they share the items before. Threads: values.  Cost: a comparison with each item before,
// where an item ends.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"

namespace capstan::engine {

class UniqueItems {
 public:
  // No such array is open.
  bool idle() const { return open_.empty(); }
  // Some item was written already that could be repeated.
  bool has_items() const;
  bool in_string() const { return in_string_; }
  // Directly in the array, not inside an item's string, object or array.
  bool between_items() const { return !open_.empty() && !in_string_ && depth_ == open_.back().depth; }
  // If the item ended here (as a number may), it would be a repetition.
  bool would_repeat() const { return between_items() && repeats(open_.back()); }

  // False: the byte completes a repetition; then this object is not to be used any more.
  bool read(char byte, bool opens);

 private:
  struct Item {
    std::string text;
    std::shared_ptr<const Item> before;
  };
  struct Array {
    int depth;
    std::string item = {};  // so far, without blanks around it
    std::shared_ptr<const Item> items = {};
  };

  static bool repeats(const Array& array);
  static bool keep(Array& array);
  bool read_in_string(char byte);
  bool read_closing(char byte);
  void append(char byte, std::size_t arrays);

  int depth_ = 0;  // of brackets and braces since the outermost array
  bool in_string_ = false;
  bool escaped_ = false;
  std::vector<Array> open_;
};

}  // namespace capstan::engine
