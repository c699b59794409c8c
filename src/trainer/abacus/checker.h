// Checker: whether a reply is right, by other means than the ones that made it.
//
// The generator computes answers forwards; the checker verifies them backwards (a difference by adding, a
// quotient by multiplying), dates by the C++ calendar instead of abacus's tables, and the tool's code by a
// small evaluator. Pure; threads: any.  Cost: microseconds.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/abacus/problem.h"

namespace capstan::trainer::abacus {

// What the final channel must say, up to a number's form: exactly one correct text per problem.
bool is_right_answer(const Problem& problem, std::string_view text);

// Python's output of "print(EXPRESSION[, EXPRESSION]…)" where an expression is INTEGER [OPERATOR INTEGER]
// with
// + - * // %. nullopt for any other code, a division by zero, or numbers beyond 18 digits.
std::optional<std::string> run_print(std::string_view code);

// The messages of an assistant's turn. nullopt if the tokens are not harmony that ends in <|return|> or
// <|call|>.
struct ReplyMessage {
  std::string header;  // "analysis", "final", "analysis to=python code"
  std::string text;
  std::int32_t end = 0;  // kEnd, kReturn or kCall
};
std::optional<std::vector<ReplyMessage>> parse_reply(std::span<const std::int32_t> tokens);

}  // namespace capstan::trainer::abacus
