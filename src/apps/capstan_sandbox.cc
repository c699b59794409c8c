// `capstan-sandbox`: the launcher of sandboxes. Started by sandbox::Launcher with its socket as descriptor 3.
#include <cstdio>
#include <cstring>

#include "sandbox/launch/check.h"
#include "sandbox/launch/server.h"

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--check") == 0) return capstan::sandbox::print_checks();
  if (argc == 3 && std::strcmp(argv[1], "--filter") == 0) return capstan::sandbox::print_filter(argv[2]);
  if (argc == 2 && std::strcmp(argv[1], "--serve") == 0) return capstan::sandbox::serve(3);
  std::fprintf(stderr, "capstan-sandbox is started by capstan; see: capstan sandbox --help\n");
  return 2;
}
