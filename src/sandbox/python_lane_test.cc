// Goal: a program in the python-zygote lane does, prints and ends as it does under /usr/bin/python3, though
// its interpreter is a fork that was made ahead and is never taken down in full. Method: each program runs in
// both lanes, and what comes of it must agree.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <regex>

#include "base/file.h"
#include "sandbox/sandbox_testing.h"
#include "sandbox/wire.h"

namespace capstan::sandbox {
namespace {

class PythonLaneTest : public SandboxTest {
 protected:
  void SetUp() override {
    SandboxTest::SetUp();
    if (::access("/usr/bin/python3", X_OK) != 0) GTEST_SKIP() << "/usr/bin/python3 is not installed";
  }

  static CommandResult in_lane(const std::string& code, CommandSpec command = {}) {
    command.code = code;
    return result_of({.lane = Lane::kPythonZygote, .tenant = "t"}, command);
  }
  static CommandResult under_python(const std::string& code, CommandSpec command = {}) {
    std::vector<std::string> argv = {"/usr/bin/python3", "-I", "-S", "-c", code};
    argv.insert(argv.end(), command.argv.begin(), command.argv.end());
    command.argv = argv;
    return result_of({}, command);
  }

  static CommandResult result_of(const SandboxSpec& spec, const CommandSpec& command) {
    auto result = launcher_->run(spec, command);
    EXPECT_TRUE(result) << result.error().message;
    return result ? *std::move(result) : CommandResult{};
  }

  // What comes of a program, but for what its source is called and where objects lie.
  static std::string told(CommandResult result) {
    for (std::string* text : {&result.out, &result.err}) {
      *text = std::regex_replace(*text, std::regex("<string>"), "<code>");
      *text = std::regex_replace(*text, std::regex("0x[0-9a-f]+"), "0x");
    }
    return std::string(ended_name(result.ended)) + " " + std::to_string(result.exit_code) +
           "\nout: " + result.out + "\nerr: " + result.err;
  }

  static void expect_agreement(const std::string& code, const CommandSpec& command = {}) {
    EXPECT_EQ(told(in_lane(code, command)), told(under_python(code, command))) << code;
  }
};

TEST_F(PythonLaneTest, ArgumentsEnvironmentUserAndDirectoryAreTheSandboxs) {
  const auto result = in_lane(
      "import os, sys, json\nprint(sys.argv, os.environ['A'], os.getenv('HOME'), os.getuid(), os.getcwd(), "
      "os.getpid(), sys.path[0], flush=True)\nos.system('echo $A')\nsys.exit(4)\n",
      {.argv = {"one", "tw\xc3\xb6"}, .env = {"A=b"}});
  EXPECT_EQ(result.out, "['-c', 'one', 'tw\xc3\xb6'] b /work 1000 /work 2 /work\nb\n") << result.err;
  EXPECT_EQ(result.exit_code, 4);
}

TEST_F(PythonLaneTest, ProgramsEndAsUnderPython) {
  for (const char* code : {
           "pass",
           "print('no newline', end='')",
           "import sys; print('out'); print('err', file=sys.stderr)",
           "raise ValueError('wrong')",
           "def f():\n  1 / 0\nf()",
           "syntax error",
           "import sys; sys.exit()",
           "import sys; sys.exit(3)",
           "import sys; sys.exit(-1)",
           "import sys; sys.exit('a reason')",
           "raise SystemExit(True)",
           "import os; os._exit(9)",
           "import os; os.kill(os.getpid(), 15)",
           "raise KeyboardInterrupt",
           "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(10)",
           "import sys; sys.stdout.close()",
           "import sys; del sys.stdout",
           "import sys; sys.stdout = None; print('nowhere')",
           "import sys; sys.stdout = sys.__stdout__; print('kept')",
           "import os; print('buffered'); os.close(1)",
           "import sys; sys.stdout.write('half\\ud800')",
       })
    expect_agreement(code);
}

TEST_F(PythonLaneTest, WhatIsLeftForTheEndHappensAsUnderPython) {
  for (const char* code : {
           "import atexit\natexit.register(print, 'first')\natexit.register(print, 'second')\nprint('main')",
           "import atexit\nclass C:\n  def __call__(self): 1 / 0\n  def __repr__(self): return "
           "'c'\natexit.register(C())\natexit.register(print, 'still')",
           "import atexit, sys\natexit.register(print, 'end')\nsys.exit(5)",
           "import threading, time\ndef f():\n  time.sleep(0.1)\n  print('thread')\n"
           "threading.Thread(target=f).start()\nprint('main')",
           "import threading, time\nthreading.Thread(target=time.sleep, args=(50,), daemon=True).start()\n"
           "print('main')",
           // Files that nobody closed are written, objects finalised; in cycles, too.
           "import os\nif os.fork() == 0:\n  f = open('/work/f', 'w')\n  f.write('kept')\nelse:\n  "
           "os.wait()\n"
           "  print(open('/work/f').read())",
           "import os\nif os.fork() == 0:\n  f = open('/work/f', 'w')\n  f.write('kept')\n  l = [f]\n"
           "  l.append(l)\n  del f, l\nelse:\n  os.wait()\n  print(open('/work/f').read())",
           "class A:\n  def __del__(self): print('finalised')\na = A()\nprint('main')",
           "class A:\n  def __init__(self): self.me = self\n  def __del__(self): print('finalised')\nA()\n"
           "print('main')",
           "class A:\n  def __del__(self): raise ValueError('late')\n_a = A()",
           "import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'finalised')",
       })
    expect_agreement(code);
}

TEST_F(PythonLaneTest, TheInterpreterIsWhatAProgramExpects) {
  for (const char* code : {
           "import gc; print(gc.isenabled(), gc.get_threshold())",
           "import pickle\nclass A: x = 3\nprint(pickle.loads(pickle.dumps(A())).x, __name__, A.__module__)",
           "x: int = 3\nprint(__annotations__, sorted(k for k in globals() if k != '__annotations__'))",
           "import sys, __main__\nprint(sys.modules['__main__'] is __main__, __main__.__dict__ is globals())",
           "import threading\nprint(threading.main_thread().native_id == threading.get_native_id(), "
           "threading.current_thread() is threading.main_thread(), threading.active_count())",
           // Its own forks: other threads are forgotten, the seed is renewed.
           "import os, random, threading, time\nthreading.Thread(target=time.sleep, args=(0.3,)).start()\n"
           "r, w = os.pipe()\nif os.fork() == 0:\n  print(threading.active_count(), flush=True)\n"
           "  os.write(w, random.random().hex().encode())\n  os._exit(0)\nos.wait()\n"
           "print(os.read(r, 99).decode() == random.random().hex(), threading.active_count())",
           "import subprocess, sys\nprint(subprocess.run(['/bin/echo', 'x'], capture_output=True).stdout)",
           "import os; print(sorted(os.listdir('/proc/self/fd'))[:3], dict(os.environ))",
           "import sys\nfor s in sys.stdin, sys.stdout, sys.stderr: print(s.encoding, s.errors, s.mode, "
           "s.isatty(), s.seekable(), s.line_buffering, s.write_through, s.fileno())",
           "import sys; print(sys.stdin.read(), sys.stdin.buffer.read())",
           "input()",
           "print(dir(__builtins__) == dir(__import__('builtins')))",
       })
    expect_agreement(code);
}

// Streams are made ahead for the usual kinds of standard input and output; these are all kinds.
TEST_F(PythonLaneTest, StandardInputAndOutputOfEveryKindAreUsedAsUnderPython) {
  const std::string code =
      "import sys\nline = input()\nprint(line, sys.stdin.read(), sys.stdin.seekable())\n"
      "print(sys.stdout.seekable() and sys.stdout.tell(), sys.stdout.line_buffering, file=sys.stderr)\n";
  for (const bool to_file : {false, true}) {
    std::string contents[2];
    for (const bool lane : {false, true}) {
      const auto folder = std::filesystem::temp_directory_path() / ("capstan-python-lane-" + random_hex(4));
      std::filesystem::create_directory(folder);
      ASSERT_TRUE(write_file_atomic(folder / "in", "first\nsecond\nthird", 0600));
      ASSERT_TRUE(write_file_atomic(folder / "out", "before\n"));
      const Fd in(::open((folder / "in").c_str(), O_RDONLY | O_CLOEXEC));
      const Fd out(::open((folder / "out").c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
      CommandSpec command;
      command.stdin_fd = in.get();
      if (to_file) command.stdout_fd = out.get();
      contents[lane] = told(lane ? in_lane(code, command) : under_python(code, command));
      contents[lane] += read_file(folder / "out").value_or("");
      std::filesystem::remove_all(folder);
    }
    EXPECT_EQ(contents[1], contents[0]);
  }
}

TEST_F(PythonLaneTest, RandomNumbersDifferBetweenRuns) {
  const std::string code = "import random\nprint(random.random())\n";
  EXPECT_NE(in_lane(code).out, in_lane(code).out);
}

TEST_F(PythonLaneTest, ATemplateIsRefused) {
  EXPECT_EQ(
      launcher_->run({.lane = Lane::kPythonZygote, .template_root = "/"}, {.code = "pass"}).error().code,
      Code::kInvalid);
}

}  // namespace
}  // namespace capstan::sandbox
