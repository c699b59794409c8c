// Tries what a sandbox needs of this kernel, each in a child of its own, and says what it found.
#pragma once

namespace capstan::sandbox {

// Prints "name<tab>yes or no<tab>what was found", a line each, to standard output; 0.
int print_checks();

}  // namespace capstan::sandbox
