// Phrasing: a problem as a person would type it.
#pragma once

#include <string>

#include "base/prng.h"
#include "trainer/abacus/problem.h"

namespace capstan::trainer::abacus {

// "What is 48217 + 9386?", "48217+9386", "please add 48,217 and 9386", … Several dozen forms; about one in
// four in lower case or without its last mark, one in twelve with thousands separators, never longer than
// kQuestionBytesMax. Pure; cost: microseconds.
inline constexpr std::size_t kQuestionBytesMax = 160;
std::string draw_question(const Problem& problem, Prng& rng);

}  // namespace capstan::trainer::abacus
