// Recursive descent; a rule's name becomes a RuleId when it is first seen, whether defined yet or not.
#include "engine/grammar/gbnf.h"

#include <algorithm>

namespace capstan::engine {
namespace {

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

class GbnfParser {
 public:
  GbnfParser(GrammarBuilder& build, std::string_view text) : build_(build), text_(text) {}

  Result<RuleId> parse() {
    skip(true);
    while (at_ < text_.size()) {
      CAPSTAN_CHECK(rule());
      skip(true);
    }
    for (const auto& [name, known] : rules_) {
      if (!known.defined) return fail(Code::kInvalid, "the rule '{}' is used but not defined", name);
    }
    const auto root = rules_.find("root");
    if (root == rules_.end()) return fail(Code::kInvalid, "there is no rule 'root'");
    return root->second.rule;
  }

 private:
  struct Known {
    RuleId rule;
    bool defined = false;
  };

  // "line:column: message"
  template <class... Args>
  std::unexpected<Error> wrong(fmt::format_string<Args...> format, Args&&... args) const {
    const std::string_view before = text_.substr(0, at_);
    const auto line = 1 + std::ranges::count(before, '\n');
    const std::size_t begin = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
    return fail(Code::kInvalid, "line {}, column {}: {}", line, at_ - begin + 1,
                fmt::format(format, std::forward<Args>(args)...));
  }
  std::unexpected<Error> wrong_here(const Error& error) const { return wrong("{}", error.message); }

  char peek(std::size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool take(char c) {
    if (peek() != c || at_ >= text_.size()) return false;
    ++at_;
    return true;
  }
  void skip(bool lines) {
    for (; at_ < text_.size(); ++at_) {
      if (peek() == '#') {
        while (at_ < text_.size() && peek() != '\n') ++at_;
        if (at_ >= text_.size()) return;
      }
      const char c = peek();
      if (c != ' ' && c != '\t' && !(lines && (c == '\n' || c == '\r'))) return;
    }
  }
  // Does the next line go on with |?
  bool goes_on() {
    const std::size_t before = at_;
    skip(true);
    if (peek() == '|') return true;
    at_ = before;
    return false;
  }

  std::string_view name() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && is_name(peek())) ++at_;
    return text_.substr(begin, at_ - begin);
  }
  Known& known(std::string_view name) {
    const auto found = rules_.find(name);
    if (found != rules_.end()) return found->second;
    return rules_.emplace(std::string(name), Known{build_.new_rule()}).first->second;
  }

  Result<void> rule() {
    const std::string_view called = name();
    if (called.empty()) return wrong("a rule's name is expected");
    skip(false);
    if (text_.substr(at_, 3) != "::=") return wrong("'::=' is expected behind the rule's name '{}'", called);
    at_ += 3;
    Known& rule = known(called);
    if (std::exchange(rule.defined, true)) return wrong("the rule '{}' is defined twice", called);
    const RuleId id = rule.rule;
    skip(true);
    CAPSTAN_TRY(const Expression body, alternatives(0));
    build_.end_rule(id, emit(build_, build_.rule_start(id), body, true));
    if (build_.overflowed()) return wrong("the grammar needs more than {} states", kNodesMax);
    if (at_ < text_.size() && peek() != '\n' && peek() != '\r')
      return wrong("'{}' is not expected here", peek());
    return {};
  }

  Result<Expression> alternatives(int depth) {
    std::vector<Expression> parts;
    for (;;) {
      CAPSTAN_TRY(Expression one, sequence(depth));
      parts.push_back(std::move(one));
      skip(depth > 0);
      if (peek() != '|' && (depth > 0 || !goes_on())) break;
      ++at_;
      skip(true);
    }
    return Expression::alternatives(std::move(parts));
  }

  Result<Expression> sequence(int depth) {
    std::vector<Expression> parts;
    for (;;) {
      skip(depth > 0);
      const char c = peek();
      if (at_ >= text_.size() || c == '|' || c == ')' || c == '\n' || c == '\r') break;
      CAPSTAN_TRY(Expression part, item(depth));
      CAPSTAN_TRY(part, repeated(std::move(part)));
      parts.push_back(std::move(part));
    }
    return Expression::sequence(std::move(parts));
  }

  Result<Expression> repeated(Expression part) {
    skip(false);
    if (take('*')) return Expression::repeat(std::move(part), 0, kUnlimited);
    if (take('+')) return Expression::repeat(std::move(part), 1, kUnlimited);
    if (take('?')) return Expression::repeat(std::move(part), 0, 1);
    if (!take('{')) return part;
    const auto bounds = read_bounds(text_, at_);
    if (!bounds) return wrong_here(bounds.error());
    return Expression::repeat(std::move(part), bounds->min, bounds->max);
  }

  Result<Expression> item(int depth) {
    if (depth > kGbnfDepthMax) return wrong("parentheses are nested deeper than {}", kGbnfDepthMax);
    if (take('"')) return literal();
    if (take('[')) return bracket();
    if (take('.')) return Expression::character({{0, kCodePointMax}});
    if (take('(')) {
      skip(true);
      CAPSTAN_TRY(Expression inner, alternatives(depth + 1));
      skip(true);
      if (!take(')')) return wrong("')' is expected");
      return inner;
    }
    const std::string_view called = name();
    if (called.empty())
      return wrong("'{}' is not expected here: a rule, a literal, a class or '(' is", peek());
    return Expression::call(known(called).rule);
  }

  Result<std::uint32_t> character() {
    Result<std::uint32_t> point;
    if (!take('\\')) {
      point = read_code_point(text_, at_);
    } else {
      const char c = peek();
      ++at_;
      switch (c) {
        case 'n':
          return '\n';
        case 'r':
          return '\r';
        case 't':
          return '\t';
        case 'x':
          point = read_hex(text_, at_, 2);
          break;
        case 'u':
          point = read_hex(text_, at_, 4);
          break;
        case 'U':
          point = read_hex(text_, at_, 8);
          break;
        case '\\':
        case '"':
        case '[':
        case ']':
        case '-':
        case '^':
        case '.':
          return static_cast<std::uint32_t>(c);
        default:
          return wrong("the escape '\\{}' is not known", c);
      }
    }
    if (!point) return wrong_here(point.error());
    return point;
  }

  Result<Expression> literal() {
    std::vector<Expression> parts;
    while (!take('"')) {
      if (at_ >= text_.size() || peek() == '\n') return wrong("a literal has no closing quote");
      CAPSTAN_TRY(const std::uint32_t point, character());
      parts.push_back(Expression::character({{point, point}}));
    }
    return Expression::sequence(std::move(parts));
  }

  Result<Expression> bracket() {
    const bool invert = take('^');
    CodePointSet set;
    while (!take(']')) {
      if (at_ >= text_.size()) return wrong("'[' has no ']'");
      CAPSTAN_TRY(const std::uint32_t low, character());
      std::uint32_t high = low;
      if (peek() == '-' && peek(1) != ']') {
        ++at_;
        if (at_ >= text_.size()) return wrong("'[' has no ']'");
        CAPSTAN_TRY(high, character());
        if (high < low) return wrong("a range is out of order");
      }
      set.push_back({low, high});
    }
    return Expression::character(invert ? inverted(std::move(set)) : normalised(std::move(set)));
  }

  GrammarBuilder& build_;
  std::string_view text_;
  std::size_t at_ = 0;
  std::map<std::string, Known, std::less<>> rules_;
};

}  // namespace

Result<RuleId> add_gbnf(GrammarBuilder& build, std::string_view text) {
  if (text.size() > kGbnfBytesMax)
    return fail(Code::kInvalid, "a grammar of {} bytes; at most {} are supported", text.size(),
                kGbnfBytesMax);
  return GbnfParser(build, text).parse();
}

Result<std::shared_ptr<const Grammar>> compile_gbnf(std::string_view text) {
  GrammarBuilder build;
  CAPSTAN_TRY(const RuleId root, add_gbnf(build, text));
  return std::move(build).finish(root);
}

}  // namespace capstan::engine
