// Goal: tools do what they say inside a real sandbox, keep what should be kept, and survive what a model does
// to them.
#include "agents/loop/toolbox.h"

#include "sandbox/sandbox_testing.h"

namespace capstan::agents::loop {
namespace {

class ToolboxTest : public sandbox::SandboxTest {
 protected:
  void open(SandboxOptions options = {}) {
    auto opened = Toolbox::open(*launcher_, options);
    ASSERT_TRUE(opened) << opened.error().message;
    box_ = std::move(*opened);
  }
  Outcome call(const std::string& tool, const Json& arguments, std::int64_t time_ms = 20'000) {
    auto outcome =
        box_->call({"id", tool, arguments.is_string() ? arguments.as_string() : arguments.dump()}, time_ms);
    EXPECT_TRUE(outcome) << outcome.error().message;
    return outcome ? *outcome : Outcome{};
  }
  Outcome python(const std::string& code, std::int64_t time_ms = 20'000) {
    return call("python", Json::object({{"code", code}}), time_ms);
  }
  Outcome shell(const std::string& command, std::int64_t time_ms = 20'000) {
    return call("run_command", Json::object({{"command", command}}), time_ms);
  }
  std::unique_ptr<Toolbox> box_;
};

TEST_F(ToolboxTest, PythonKeepsItsVariablesAndShowsTheLastValue) {
  open();
  EXPECT_EQ(python("import math\nx = 6 * 7").output, "");
  const Outcome shown = python("print('x is', x)\nx + math.floor(0.5)");
  EXPECT_EQ(shown.output, "x is 42\n42");
  EXPECT_TRUE(shown.good());
  EXPECT_GT(shown.memory_peak_bytes, 0);
  EXPECT_EQ(call("python", "print(x)").output, "42");  // bare code instead of JSON
  EXPECT_EQ(call("python", "\"print(x)\"").output, "42");
}

TEST_F(ToolboxTest, AnExceptionIsATracebackOfTheModelsOwnLines) {
  open();
  const Outcome outcome = python("def f(n):\n  return 1 / n\nf(0)");
  EXPECT_FALSE(outcome.good());
  EXPECT_NE(outcome.output.find("return 1 / n"), std::string::npos) << outcome.output;
  EXPECT_NE(outcome.output.find("ZeroDivisionError: division by zero"), std::string::npos);
  EXPECT_EQ(outcome.output.find("execute"), std::string::npos)
      << "the driver's own frames do not belong there";
  EXPECT_NE(python("print(").output.find("SyntaxError"), std::string::npos);
}

TEST_F(ToolboxTest, ALoopIsInterruptedAndVariablesStay) {
  open();
  python("x = 5");
  const Outcome outcome = python("print('begun', flush=True)\nwhile True: pass", 300);
  EXPECT_EQ(outcome.ended, "wall_time");
  EXPECT_TRUE(outcome.output.starts_with("begun\n")) << outcome.output;
  EXPECT_NE(outcome.output.find("variables are kept"), std::string::npos);
  EXPECT_EQ(python("x").output, "5");
}

TEST_F(ToolboxTest, CodeThatWillNotStopIsKilledAndTheModelIsTold) {
  open();
  python("x = 5");
  const Outcome outcome = python(
      "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('stubborn', flush=True)\nwhile "
      "True: pass",
      300);
  EXPECT_EQ(outcome.ended, "wall_time");
  EXPECT_TRUE(outcome.output.starts_with("stubborn\n")) << outcome.output;
  EXPECT_NE(outcome.output.find("variables are gone"), std::string::npos);
  const Outcome next = python("'x' in globals()");
  EXPECT_EQ(next.output, "[a new interpreter: earlier variables are gone]\nFalse");
}

TEST_F(ToolboxTest, AnInterpreterThatEndsOrIsTooBigIsReplaced) {
  open({.memory_bytes = 64 << 20});
  EXPECT_NE(python("import os; os._exit(3)").output.find("the interpreter ended (exited)"),
            std::string::npos);
  const Outcome bomb = python("x = 'y' * (200 << 20)");
  EXPECT_FALSE(bomb.good());
  EXPECT_TRUE(bomb.ended == "memory" || bomb.output.find("MemoryError") != std::string::npos)
      << bomb.ended << bomb.output;
  EXPECT_NE(python("print('alive')").output.find("alive"), std::string::npos);
  EXPECT_TRUE(python("exit()").good());
  EXPECT_EQ(python("exit('bad')").output, "bad");
}

TEST_F(ToolboxTest, PythonKeepsTheOrderOfWritingAndRunsShellLinesAwaitsAndForks) {
  open();
  const Outcome mixed = python("import os, sys\nprint('a', end='')\nprint('b', file=sys.stderr)\n"
                               "os.system('echo c')\nos.write(2, b'd\\n')\n'e'");
  EXPECT_EQ(mixed.output, "ab\nc\nd\n'e'");
  EXPECT_EQ(python("!echo hi").output, "hi");
  EXPECT_EQ(python("import asyncio\nawait asyncio.sleep(0, 7)").output, "7");
  EXPECT_EQ(python("pid = os.fork()\nif pid == 0:\n  print('child')\n  os._exit(0)\nos.waitpid(pid, 0)[1]").output, "child\n0");
  const Outcome flood = python("import json\nfor i in range(64): os.write(1, b'x' * 65536)");
  EXPECT_TRUE(flood.good() && flood.truncated);
}

TEST_F(ToolboxTest, OutputOfChildrenAndErrorsBelongsToTheCallAndStandardInputIsEmpty) {
  open();
  const Outcome outcome = python(
      "import os, sys\nos.system('echo from a child')\nprint('err', "
      "file=sys.stderr)\nprint(repr(sys.stdin.read()))");
  EXPECT_EQ(outcome.output, "from a child\nerr\n''");
}

TEST_F(ToolboxTest, LongOutputKeepsItsBeginningAndEnd) {
  open({.call_output_bytes = 1000});
  const Outcome outcome = python("print('a' * 5000 + 'end')");
  EXPECT_TRUE(outcome.truncated);
  EXPECT_LT(outcome.output.size(), 1100u);
  EXPECT_TRUE(outcome.output.ends_with("aend")) << outcome.output;
  EXPECT_NE(outcome.output.find("bytes left out]"), std::string::npos);
  EXPECT_TRUE(shell("head -c 3000000 /dev/zero | tr '\\0' x").truncated);
}

TEST_F(ToolboxTest, ACommandsOutputExitCodeAndLimitsAreTold) {
  open();
  const std::string both = shell("echo out; pwd; echo err >&2").output;  // two pipes: in either order
  EXPECT_TRUE(both == "out\n/work\nerr" || both == "err\nout\n/work") << both;
  const Outcome failed = shell("echo no; exit 3");
  EXPECT_EQ(failed.output, "no\n[exit code 3]");
  EXPECT_EQ(failed.exit_code, 3);
  EXPECT_EQ(shell("sleep 20", 200).output, "[stopped: wall_time]");
}

TEST_F(ToolboxTest, FilesAreSharedByAllToolsAndNothingOutsideIsReached) {
  open({.files = {{"/work/data/in.txt", "given"}}});
  EXPECT_EQ(call("read_file", Json::object({{"path", "data/in.txt"}})).output, "given");
  EXPECT_EQ(call("write_file",
                 Json::object({{"path", "/work/mod.py"}, {"content", "def f(): return 'imported'\n"}}))
                .output,
            "wrote 27 bytes to /work/mod.py");
  EXPECT_EQ(python("import mod; mod.f()").output, "'imported'");
  EXPECT_EQ(shell("cat mod.py | head -c 3").output, "def");
  EXPECT_FALSE(call("read_file", Json::object({{"path", "/work/none"}})).good());
  EXPECT_FALSE(call("read_file", Json::object({{"path", "/proc/self/environ"}})).good());
  EXPECT_FALSE(call("write_file", Json::object({{"path", "/usr/bin/sh"}, {"content", "x"}})).good());
  shell("ln -s /etc/passwd link");
  EXPECT_FALSE(call("read_file", Json::object({{"path", "link"}})).good());
}

TEST_F(ToolboxTest, WrongArgumentsAreRefusedWithWhatWouldBeRight) {
  open();
  EXPECT_EQ(call("run_command", Json::object({{"cmd", "ls"}})).output,
            "'command' is missing: the shell line to run");
  EXPECT_EQ(call("run_command", "ls").output, "the arguments must be a JSON object, not: ls");
  EXPECT_EQ(call("browse", Json::object()).output, "there is no tool 'browse'");
  EXPECT_EQ(call("write_file", Json::object({{"path", "x"}})).ended, "refused");
}

class JudgeTest : public ToolboxTest {
 protected:
  Outcome judge(StepKind kind, const Program& program) {
    const Json facts = Json::object({{"answer", "42"}, {"task", Json::object({{"expected", "42"}})}});
    auto outcome = box_->judge(kind, program, facts, 20'000);
    EXPECT_TRUE(outcome) << outcome.error().message;
    return outcome ? *outcome : Outcome{};
  }
};

TEST_F(JudgeTest, PythonJudgesByItsLastExpressionAnAssertionOrAnException) {
  open();
  EXPECT_TRUE(judge(StepKind::kCheck, {.python = "answer == task['expected']"}).good());
  const Outcome untrue = judge(StepKind::kCheck, {.python = "x = 41\nint(answer) == x"});
  EXPECT_FALSE(untrue.good());
  EXPECT_EQ(untrue.output, "it is not true that int(answer) == x");
  EXPECT_EQ(judge(StepKind::kCheck, {.python = "assert answer == '41', 'want 41'"}).output, "want 41");
  EXPECT_EQ(judge(StepKind::kCheck, {.python = "int('x')"}).output,
            "ValueError: invalid literal for int() with base 10: 'x'");
  EXPECT_EQ(judge(StepKind::kScore, {.python = "answer == task['expected']"}).output, "1.0");
  EXPECT_EQ(judge(StepKind::kScore, {.python = "len(answer) / 4"}).output, "0.5");
}

TEST_F(JudgeTest, ACommandGetsTheFactsOnItsStandardInput) {
  open();
  const Outcome outcome =
      judge(StepKind::kScore, {.command = {"/bin/sh", "-c", "grep -c '\"answer\":\"42\"'"}});
  EXPECT_EQ(outcome.output, "1");
  EXPECT_FALSE(judge(StepKind::kScore, {.command = {"/no/such"}}).good());
}

TEST_F(JudgeTest, BeforeAScoreWhateverTheModelLeftRunningIsKilled) {
  open();
  shell("(while :; do echo still >> /work/beat; sleep 0.02; done) >/dev/null 2>&1 &");
  python("x = 1");
  const Outcome outcome = judge(
      StepKind::kScore, {.command = {"/bin/sh", "-c",
                                     "ls /proc | grep -c '^[0-9]'; wc -l </work/beat >/work/a; sleep "
                                     "0.2; wc -l </work/beat >/work/b; cmp /work/a /work/b && echo 1"}});
  EXPECT_TRUE(outcome.output.ends_with("\n1")) << outcome.output;
}

TEST_F(ToolboxTest, ARestartForgetsFilesAndVariablesButNotWhatWasUsed) {
  open({.files = {{"/work/given", "g"}}});
  python("x = 1\nopen('/work/mine', 'w').write('m')");
  const auto before = box_->usage().cpu_us;
  ASSERT_TRUE(box_->restart());
  EXPECT_EQ(shell("ls").output, "given");
  EXPECT_NE(python("x").output.find("NameError"), std::string::npos);
  EXPECT_GT(box_->usage().cpu_us, before);
}

TEST_F(ToolboxTest, KillEndsACallFromAnotherThread) {
  open();
  std::thread killer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    box_->kill();
  });
  const auto outcome = box_->call({"id", "run_command", "{\"command\":\"sleep 60\"}"}, 60'000);
  killer.join();
  EXPECT_TRUE(!outcome || !outcome->good());
}

TEST(Clip, KeepsUtf8WholeAndReplacesWhatIsNone) {
  bool truncated = false;
  EXPECT_EQ(clip("a\xff z\n\n", 100, truncated), "a\xEF\xBF\xBD z");
  EXPECT_FALSE(truncated);
  std::string euros;
  for (int i = 0; i < 400; ++i) euros += "€";
  const std::string clipped = clip(euros, 301, truncated);
  EXPECT_TRUE(truncated);
  bool again = false;
  EXPECT_EQ(clip(clipped, 10'000, again), clipped) << "no character was cut";
}

}  // namespace
}  // namespace capstan::agents::loop
