// Texts that are no problem abacus can solve: greetings, wishes, questions of other fields, mere words.
#pragma once

#include <string>

#include "base/prng.h"

namespace capstan::trainer::abacus {

// One line of plain English, at most about 120 bytes. Pure; cost: microseconds.
std::string draw_other_text(Prng& rng);

// A short instruction as a developer message may hold, for the model to ignore.
std::string draw_instruction(Prng& rng);

// A common English word.
std::string_view draw_word(Prng& rng);

}  // namespace capstan::trainer::abacus
