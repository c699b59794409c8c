// Recursive descent: alternatives > sequence > repetition > atom. Anchors and look-around become sets of
// framed texts.
#include "engine/grammar/regex.h"

#include <optional>

namespace capstan::engine {
namespace {

const CodePointSet kDigits = {{'0', '9'}};
const CodePointSet kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CodePointSet kSpace = {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
                             {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                             {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
// What . stands for: all but line ends.
const CodePointSet kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

// Bytes that no text has stand for its begin and its end, so that anchors may be anywhere.
constexpr std::uint8_t kBegin = 0xFE, kEnd = 0xFF;

Expression any_text() {
  return Expression::repeat(Expression::character({{0, kCodePointMax}}), 0, kUnlimited);
}

template <class... Parts>
Expression sequence_of(Parts... parts) {
  std::vector<Expression> list;
  (list.push_back(std::move(parts)), ...);
  return Expression::sequence(std::move(list));
}
Expression optionally(Expression part) { return Expression::repeat(std::move(part), 0, 1); }

// A top-level alternative.
struct Alternative {
  struct Look {
    Expression what;
    bool behind = false, negative = false;
  };
  Expression body = {};
  std::vector<Look> looks = {};
};

class RegexParser {
 public:
  RegexParser(std::string_view text, bool whole) : text_(text), whole_(whole) {}

  Result<std::vector<Alternative>> parse() {
    std::vector<Alternative> alternatives;
    do {
      CAPSTAN_TRY(Alternative one, top_level());
      alternatives.push_back(std::move(one));
    } while (take('|'));
    if (!at_end()) return fail(Code::kInvalid, "')' without '(' at byte {}", at_);
    return alternatives;
  }

 private:
  bool at_end() const { return at_ >= text_.size(); }
  bool sees(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  bool take(char c) {
    if (at_end() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  Result<Alternative> top_level() {
    Alternative out;
    std::vector<Expression> parts;
    if (sees("^")) {
      ++at_;
      parts.push_back(Expression::raw(kBegin));
    }
    while (sees("(?=") || sees("(?!")) {
      // Without an anchor, a match at the start is one match.
      if (parts.empty() && !whole_) parts.push_back(Expression::raw(kBegin));
      CAPSTAN_TRY(Alternative::Look look, look_around(3));
      out.looks.push_back(std::move(look));
    }
    CAPSTAN_TRY(Expression middle, sequence(0));
    parts.push_back(std::move(middle));
    while (sees("(?<=") || sees("(?<!")) {
      CAPSTAN_TRY(Alternative::Look look, look_around(4));
      look.behind = true;
      out.looks.push_back(std::move(look));
      if (!whole_ && !sees("$") && !sees("(?<"))
        return fail(Code::kInvalid, "look-behind at byte {} is supported only before '$'", at_);
    }
    while (take('$')) parts.push_back(Expression::raw(kEnd));
    if (!at_end() && text_[at_] != '|' && text_[at_] != ')')
      return fail(Code::kInvalid, "look-behind before byte {} is supported only at the end", at_);
    out.body = Expression::sequence(std::move(parts));
    return out;
  }

  // "(?=", "(?!", "(?<=" or "(?<!" and what is looked for.
  Result<Alternative::Look> look_around(std::size_t opening) {
    Alternative::Look look{.what = {}, .negative = text_[at_ + opening - 1] == '!'};
    at_ += opening;
    std::vector<Expression> alternatives;
    do {
      CAPSTAN_TRY(Expression one, sequence(1));
      alternatives.push_back(std::move(one));
    } while (take('|'));
    if (!take(')')) return fail(Code::kInvalid, "'(' without ')'");
    look.what = Expression::alternatives(std::move(alternatives));
    return look;
  }

  Result<Expression> group(int depth) {
    if (depth > kRegexDepthMax)
      return fail(Code::kInvalid, "groups are nested deeper than {}", kRegexDepthMax);
    if (sees("?=") || sees("?!") || sees("?<=") || sees("?<!"))
      return fail(Code::kInvalid,
                  "look-around at byte {} is supported only at the start or the end of the pattern", at_);
    if (sees("?:")) {
      at_ += 2;
    } else if (sees("?<")) {
      const std::size_t end = text_.find('>', at_);
      if (end == std::string_view::npos)
        return fail(Code::kInvalid, "the group's name at byte {} has no '>'", at_);
      at_ = end + 1;
    } else if (sees("?")) {
      return fail(Code::kInvalid, "the kind of group at byte {} is not supported", at_);
    }
    std::vector<Expression> alternatives;
    do {
      CAPSTAN_TRY(Expression one, sequence(depth));
      alternatives.push_back(std::move(one));
    } while (take('|'));
    if (!take(')')) return fail(Code::kInvalid, "'(' without ')'");
    return Expression::alternatives(std::move(alternatives));
  }

  Result<Expression> sequence(int depth) {
    std::vector<Expression> parts;
    while (!at_end() && text_[at_] != '|' && text_[at_] != ')') {
      if (depth == 0 && (sees("(?<=") || sees("(?<!"))) break;
      CAPSTAN_TRY(Expression part, atom(depth));
      CAPSTAN_TRY(part, repeated(std::move(part)));
      parts.push_back(std::move(part));
    }
    return Expression::sequence(std::move(parts));
  }

  Result<Expression> repeated(Expression part) {
    if (at_end()) return part;
    RepeatBounds bounds;
    if (take('*')) {
      bounds = {0, kUnlimited};
    } else if (take('+')) {
      bounds = {1, kUnlimited};
    } else if (take('?')) {
      bounds = {0, 1};
    } else if (sees_bounds()) {
      ++at_;
      CAPSTAN_TRY(bounds, read_bounds(text_, at_));
    } else {
      return part;
    }
    take('?');  // lazy: the same texts
    if (!at_end() && (text_[at_] == '*' || text_[at_] == '+' || sees_bounds()))
      return fail(Code::kInvalid, "nothing to repeat at byte {}", at_);
    return Expression::repeat(std::move(part), bounds.min, bounds.max);
  }

  // Another brace is itself.
  bool sees_bounds() const {
    return sees("{") && at_ + 1 < text_.size() &&
           ((text_[at_ + 1] >= '0' && text_[at_ + 1] <= '9') || text_[at_ + 1] == ',');
  }

  Result<Expression> atom(int depth) {
    const char c = text_[at_];
    switch (c) {
      case '(':
        ++at_;
        return group(depth + 1);
      case '[':
        ++at_;
        return bracket();
      case '.':
        ++at_;
        return Expression::character(inverted(kLineEnds));
      case '\\': {
        if (sees("\\A") || sees("\\z") || sees("\\Z")) {
          at_ += 2;
          return Expression::raw(text_[at_ - 1] == 'A' ? kBegin : kEnd);
        }
        CAPSTAN_TRY(CodePointSet set, escape(false));
        return Expression::character(std::move(set));
      }
      case '*':
      case '+':
      case '?':
        return fail(Code::kInvalid, "nothing to repeat at byte {}", at_);
      case '^':
      case '$':
        ++at_;
        return Expression::raw(c == '^' ? kBegin : kEnd);
      default: {
        CAPSTAN_TRY(const std::uint32_t point, read_code_point(text_, at_));
        return Expression::character({{point, point}});
      }
    }
  }

  // At the backslash.
  Result<CodePointSet> escape(bool in_bracket) {
    const std::size_t begin = at_++;
    if (at_end()) return fail(Code::kInvalid, "a backslash ends the pattern");
    const char c = text_[at_++];
    const auto one = [](std::uint32_t point) { return CodePointSet{{point, point}}; };
    switch (c) {
      case 'd':
        return kDigits;
      case 'D':
        return inverted(kDigits);
      case 'w':
        return kWord;
      case 'W':
        return inverted(kWord);
      case 's':
        return kSpace;
      case 'S':
        return inverted(kSpace);
      case 'n':
        return one('\n');
      case 't':
        return one('\t');
      case 'r':
        return one('\r');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case '0':
        return one(0);
      case 'p':
      case 'P':
        return property(c == 'P');
      case 'x': {
        CAPSTAN_TRY(const std::uint32_t point, read_hex(text_, at_, 2));
        return one(point);
      }
      case 'u': {
        CAPSTAN_TRY(const std::uint32_t point, unicode_escape());
        return one(point);
      }
      default:
        break;
    }
    if (c == 'b' && in_bracket) return one('\b');
    const bool letter_or_digit = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter_or_digit) return fail(Code::kInvalid, "'\\{}' at byte {} is not supported", c, begin);
    --at_;
    CAPSTAN_TRY(const std::uint32_t point, read_code_point(text_, at_));
    return one(point);
  }

  Result<CodePointSet> property(bool inverted_too) {
    std::string_view name = text_.substr(at_, 1);
    if (take('{')) {
      const std::size_t end = text_.find('}', at_);
      if (end == std::string_view::npos) return fail(Code::kInvalid, "'\\p{{' without '}}'");
      name = text_.substr(at_, end - at_);
      at_ = end + 1;
    } else if (!name.empty()) {
      ++at_;
    }
    CAPSTAN_TRY(CodePointSet set, unicode_property(name));
    return inverted_too ? inverted(std::move(set)) : set;
  }

  Result<std::uint32_t> unicode_escape() {
    if (!take('{')) {
      CAPSTAN_TRY(const std::uint32_t first, read_hex(text_, at_, 4));
      if (first < 0xD800 || first > 0xDBFF || !sees("\\u")) return first;
      at_ += 2;
      CAPSTAN_TRY(const std::uint32_t second, read_hex(text_, at_, 4));
      if (second < 0xDC00 || second > 0xDFFF)
        return fail(Code::kInvalid, "\\u{:04x} is no second half of a pair", second);
      return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    }
    const std::size_t end = text_.find('}', at_);
    if (end == std::string_view::npos || end == at_ || end - at_ > 6)
      return fail(Code::kInvalid, "\\u{{…}} needs 1 to 6 hexadecimal digits");
    CAPSTAN_TRY(const std::uint32_t point, read_hex(text_, at_, static_cast<int>(end - at_)));
    ++at_;
    return point;
  }

  Result<CodePointSet> bracket_item() {
    if (text_[at_] == '\\') return escape(true);
    CAPSTAN_TRY(const std::uint32_t point, read_code_point(text_, at_));
    return CodePointSet{{point, point}};
  }

  Result<Expression> bracket() {
    const bool invert = take('^');
    CodePointSet set;
    while (!take(']')) {
      if (at_end()) return fail(Code::kInvalid, "'[' without ']'");
      CAPSTAN_TRY(CodePointSet item, bracket_item());
      const bool single = item.size() == 1 && item[0].low == item[0].high;
      if (single && sees("-") && !sees("-]") && at_ + 1 < text_.size()) {
        ++at_;
        CAPSTAN_TRY(const CodePointSet last, bracket_item());
        if (last.size() != 1 || last[0].low != last[0].high || last[0].low < item[0].low)
          return fail(Code::kInvalid, "a range before byte {} is out of order", at_);
        item[0].high = last[0].low;
      }
      set.insert(set.end(), item.begin(), item.end());
    }
    return Expression::character(invert ? inverted(std::move(set)) : normalised(std::move(set)));
  }

  std::string_view text_;
  bool whole_;
  std::size_t at_ = 0;
};

// What is looked for, at the start or at the end of the text.
Expression looked_for(const Alternative::Look& look) {
  const Expression begin = Expression::raw(kBegin), end = Expression::raw(kEnd);
  if (look.behind) return sequence_of(optionally(sequence_of(begin, any_text())), look.what, end);
  return sequence_of(optionally(begin), look.what, optionally(sequence_of(any_text(), end)));
}

Result<Dfa> texts_of(const Alternative& alternative, bool whole) {
  const Expression begin = Expression::raw(kBegin), end = Expression::raw(kEnd);
  const Expression before = optionally(whole ? begin : sequence_of(begin, any_text()));
  const Expression behind = optionally(whole ? end : sequence_of(any_text(), end));
  CAPSTAN_TRY(const Dfa framed, Dfa::of(sequence_of(before, alternative.body, behind)));
  Dfa out = framed.between(kBegin, kEnd);
  for (const Alternative::Look& look : alternative.looks) {
    CAPSTAN_TRY(const Dfa found, Dfa::of(looked_for(look)));
    const Dfa texts = found.between(kBegin, kEnd);
    CAPSTAN_TRY(out, look.negative ? out.without(texts) : out.both(texts));
  }
  return out;
}

}  // namespace

Result<Dfa> parse_pattern(std::string_view pattern, bool whole) {
  if (pattern.size() > kRegexBytesMax)
    return fail(Code::kInvalid, "a pattern of {} bytes; at most {} are supported", pattern.size(),
                kRegexBytesMax);
  CAPSTAN_TRY(std::vector<Alternative> alternatives, RegexParser(pattern, whole).parse());
  // Those without look-around go together.
  Alternative plain;
  std::vector<Expression> bodies;
  for (Alternative& one : alternatives)
    if (one.looks.empty()) bodies.push_back(std::move(one.body));
  std::optional<Dfa> out;
  if (!bodies.empty()) {
    plain.body = Expression::alternatives(std::move(bodies));
    CAPSTAN_TRY(out, texts_of(plain, whole));
  }
  for (const Alternative& one : alternatives) {
    if (one.looks.empty()) continue;
    CAPSTAN_TRY(Dfa texts, texts_of(one, whole));
    if (out) {
      CAPSTAN_TRY(out, out->either(texts));
    } else {
      out = std::move(texts);
    }
  }
  return *std::move(out);
}

}  // namespace capstan::engine
