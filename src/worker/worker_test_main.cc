// The worker as a program of its own, for worker_process_test: worker_test_main DATA_DIRECTORY BIN_DIRECTORY.
#include "worker/worker.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  return capstan::worker::run_worker({.data_directory = argv[1], .bin = argv[2], .share = {}});
}
