/* `capstan-sandbox-probe`: a static program for measuring sandboxes: ends at once, or waits for a signal ("wait"). */
#include <unistd.h>

int main(int argc, char** argv) {
  (void)argv;
  if (argc > 1) pause();
  return 0;
}
