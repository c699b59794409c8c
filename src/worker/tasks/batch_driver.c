// capstan-batch: inside a sandbox, runs one program for each of many tasks, one after the other. Static, one thread.
//
//   capstan-batch KEEP CPU_SECONDS FILE_BYTES PROGRAM ARGUMENT…
//
// Tasks come on standard input, "T INDEX TRY SIZE\n" and SIZE bytes of input each; answers go to standard output:
// "R INDEX CODE SIGNAL CPU_US PEAK_KIB WALL_US OUT ERR WRITTEN\n", then OUT and ERR bytes (together at most KEEP). {index} in
// arguments is the task's. Standard output and error of a task are files in memory, bounded by FILE_BYTES, so nothing has to be
// read while it runs. Whatever a task leaves running is killed before the next. A program killed by SIGKILL ends this one as
// well, with 137: only who sees the sandbox's cgroup can tell what killed it.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char** environ;

static int reply_fd, files[3];
static long long keep, cpu_seconds, file_bytes;

static void die(const char* what) {
  fprintf(stderr, "capstan-batch: %s: %s\n", what, strerror(errno));
  _exit(125);
}

static long long now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static void send_all(const char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t count = write(reply_fd, bytes, size);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) die("answer");
    bytes += count;
    size -= (size_t)count;
  }
}

static char* with_index(const char* text, const char* index) {
  static const char kMark[] = "{index}";
  size_t marks = 0;
  for (const char* at = text; (at = strstr(at, kMark)) != NULL; at += sizeof kMark - 1) ++marks;
  char* out = malloc(strlen(text) + marks * strlen(index) + 1);
  if (out == NULL) die("memory");
  char* to = out;
  for (;;) {
    const char* at = strstr(text, kMark);
    if (at == NULL) break;
    to = mempcpy(to, text, (size_t)(at - text));
    to = stpcpy(to, index);
    text = at + sizeof kMark - 1;
  }
  strcpy(to, text);
  return out;
}

static void run_program(char** argv) {
  setsid();
  for (int i = 0; i < 3; ++i) {
    if (dup2(files[i], i) < 0) _exit(127);
  }
  close_range(3, ~0u, 0);
  const struct rlimit cpu = {(rlim_t)cpu_seconds, (rlim_t)cpu_seconds + 1}, size = {(rlim_t)file_bytes, (rlim_t)file_bytes};
  setrlimit(RLIMIT_CPU, &cpu);
  setrlimit(RLIMIT_FSIZE, &size);
  execvpe(argv[0], argv, environ);
  dprintf(2, "%s: %s\n", argv[0], strerror(errno));
  _exit(errno == ENOENT ? 127 : 126);
}

// New ones: what an earlier program left running, until it is killed, writes to its own.
static void renew_files(const char* input, size_t size) {
  for (int i = 0; i < 3; ++i) {
    if (files[i] > 0) close(files[i]);
    const int file = memfd_create("task", MFD_CLOEXEC);
    files[i] = fcntl(file, F_DUPFD_CLOEXEC, 10);
    close(file);
    if (files[i] < 0) die("make files");
  }
  for (size_t done = 0; done < size;) {
    const ssize_t count = write(files[0], input + done, size - done);
    if (count <= 0) die("input");
    done += (size_t)count;
  }
  lseek(files[0], 0, SEEK_SET);
}

static void send_file(int file, long long size) {
  static char buffer[64 << 10];
  for (off_t at = 0; at < size;) {
    const long long left = size - at;
    const ssize_t count = pread(file, buffer, left < (long long)sizeof buffer ? (size_t)left : sizeof buffer, at);
    if (count <= 0) die("output");
    send_all(buffer, (size_t)count);
    at += count;
  }
}

static void run_task(const char* index, char** words, int count, const char* input, size_t size) {
  renew_files(input, size);
  char** argv = calloc((size_t)count + 1, sizeof *argv);
  if (argv == NULL) die("memory");
  for (int i = 0; i < count; ++i) argv[i] = with_index(words[i], index);
  const long long begun = now_us();
  const pid_t pid = vfork();
  if (pid == 0) run_program(argv);
  if (pid < 0) die("start a process");
  int status = 0;
  struct rusage used;
  while (wait4(pid, &status, 0, &used) < 0) {
    if (errno != EINTR) die("wait");
  }
  kill(-1, SIGKILL);  // all but this process and the sandbox's first
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) _exit(137);
  for (int i = 0; i < count; ++i) free(argv[i]);
  free(argv);
  struct stat out, err;
  if (fstat(files[1], &out) != 0 || fstat(files[2], &err) != 0) die("output");
  const long long kept_out = out.st_size < keep ? out.st_size : keep;
  const long long kept_err = err.st_size < keep - kept_out ? err.st_size : keep - kept_out;
  const long long cpu_us = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000LL + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
  char head[256];
  const int length = snprintf(head, sizeof head, "R %s %d %d %lld %ld %lld %lld %lld %lld\n", index,
                              WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
                              WIFSIGNALED(status) ? WTERMSIG(status) : 0, cpu_us, used.ru_maxrss, now_us() - begun, kept_out,
                              kept_err, (long long)(out.st_size + err.st_size));
  send_all(head, (size_t)length);
  send_file(files[1], kept_out);
  send_file(files[2], kept_err);
}

int main(int argc, char** argv) {
  if (argc < 5) {
    fprintf(stderr, "capstan-batch is started by Capstan's worker\n");
    return 2;
  }
  keep = atoll(argv[1]);
  cpu_seconds = atoll(argv[2]);
  file_bytes = atoll(argv[3]);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);  // its descriptors are not for the programs that it runs
  FILE* tasks = fdopen(fcntl(0, F_DUPFD_CLOEXEC, 10), "r");
  reply_fd = fcntl(1, F_DUPFD_CLOEXEC, 10);
  if (tasks == NULL || reply_fd < 0) die("begin");
  char index[24], number[24];
  unsigned long size = 0;
  while (fscanf(tasks, "T %23s %23s %lu", index, number, &size) == 3 && getc(tasks) == '\n') {
    char* input = malloc(size + 1);
    if (input == NULL || fread(input, 1, size, tasks) != size) die("read a task");
    setenv("CAPSTAN_TASK_INDEX", index, 1);
    setenv("CAPSTAN_TASK_ATTEMPT", number, 1);
    run_task(index, argv + 4, argc - 4, input, size);
    free(input);
  }
  return 0;
}
