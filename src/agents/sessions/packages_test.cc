// Goal: a template's packages are there for every program of its sessions, installed once, and what goes wrong is said.
// Method: the cache over an installer of the test's own; then pip in real sandboxes (skipped where the host cannot), with a
// wheel made here, from a directory and from an index on loopback.
#include "agents/sessions/packages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>

#include "agents/sessions/interpreter.h"
#include "agents/sessions/sessions_testing.h"
#include "http/server.h"

namespace capstan::agents {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;
using Kind = LayerState::Kind;

Result<PackageList> parse(const std::string& text) { return packages_of(*Json::parse(text)); }

TEST(Packages, ComeFromPyPiUnlessTheListNamesAnotherPlace) {
  const auto plain = parse(R"({"python": ["numpy==1.26.4", "requests[socks]>=2 ; python_version > '3.8'"]})");
  ASSERT_TRUE(plain) << plain.error().message;
  EXPECT_EQ(plain->index, "https://pypi.org/simple");
  EXPECT_EQ(plain->allow.text(), "pypi.org:443, files.pythonhosted.org:443");
  EXPECT_EQ(parse(R"({"python": ["a"], "index": "http://127.0.0.1:3141/simple"})")->allow.text(), "127.0.0.1:3141");
  EXPECT_EQ(parse(R"({"python": ["a"], "index": "https://me:secret@mirror.test/simple"})")->allow.text(), "mirror.test:443");
  EXPECT_EQ(parse(R"({"python": ["a"], "index": "https://m.test/s", "allow": ["m.test", "files.test"]})")->allow.text(),
            "m.test, files.test");
  const auto local = parse(R"({"python": ["a"], "wheels": "/srv/wheels"})");
  EXPECT_TRUE(local->index.empty() && local->allow.empty());
}

TEST(Packages, WhatIsWrongIsRefusedWithWhatWouldBeRight) {
  const std::pair<const char*, const char*> wrong[] = {
      {R"([])", "must be an object"},
      {R"({})", "at least one package"},
      {R"({"python": "numpy"})", "a list of strings"},
      {R"({"python": ["--index-url=http://evil"]})", "is no requirement"},
      {R"({"python": ["a\nb"]})", "is no requirement"},
      {R"({"python": ["a"], "wheels": "wheels"})", "absolute path"},
      {R"({"python": ["a"], "index": "pypi"})", "the URL of a package index"},
      {R"({"python": ["a"], "wheels": "/w", "allow": ["x.test"]})", "need no network"},
      {R"({"python": ["a"], "allow": ["not a host"]})", "is no host"},
      {R"({"debian": ["gcc"], "python": ["a"]})", "debootstrap"},
      {R"({"pip": ["a"]})", "there are python, index, wheels, allow"}};
  for (const auto& [text, why] : wrong) {
    const auto list = parse(text);
    ASSERT_FALSE(list) << text;
    EXPECT_EQ(list.error().code, Code::kInvalid);
    EXPECT_NE(list.error().message.find(why), std::string::npos) << text << ": " << list.error().message;
  }
}

class Layers : public testing::Test {
 protected:
  ~Layers() override { fs::remove_all(directory_); }
  Template form(const std::string& package) const {
    Template form{.name = "t"};
    form.packages.python = {package};
    return form;
  }
  const fs::path directory_ = fs::temp_directory_path() / ("capstan-layers-" + random_hex(6));
};

TEST_F(Layers, AreMadeOnceForEachListAndFoundAgainLater) {
  std::atomic<int> made = 0;
  const auto install = [&](const Template& form, const fs::path& place, const auto&, auto) -> Result<void> {
    ++made;
    return write_file_atomic(place / "name", form.packages.python[0]);
  };
  {
    PackageLayers layers(directory_, install);
    EXPECT_EQ(layers.state(form("a")).kind, Kind::kAbsent);
    std::vector<std::future<Result<fs::path>>> askers;
    for (int i = 0; i < 3; ++i)
      askers.push_back(std::async(std::launch::async, [&] { return layers.find(form("a"), 10s); }));
    for (auto& asker : askers) EXPECT_EQ(*read_file(*asker.get() / "name"), "a");
    EXPECT_EQ(*read_file(*layers.find(form("b"), 10s) / "name"), "b");
    EXPECT_EQ(made, 2);
  }
  PackageLayers layers(directory_, install);
  layers.keep_only({*layer_key(form("b"))});
  EXPECT_EQ(layers.state(form("b")).kind, Kind::kReady);
  EXPECT_EQ(layers.state(form("a")).kind, Kind::kAbsent);
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_), {}), 2);  // b and what it says about itself
}

TEST_F(Layers, WhoNeedsNotWaitIsToldHowFarItIsAndTooManyDoNotWait) {
  std::promise<void> go;
  const auto gone = go.get_future().share();
  PackageLayers layers(directory_, [&](const auto&, const auto&, const auto& progress, auto) -> Result<void> {
    progress("Collecting a");
    gone.wait();
    return {};
  });
  EXPECT_EQ(layers.find(form("a"), 0ms).error().code, Code::kUnavailable);
  while (layers.state(form("a")).text.empty()) std::this_thread::sleep_for(1ms);
  EXPECT_NE(layers.find(form("a"), 1ms).error().message.find("being installed (Collecting a)"), std::string::npos);
  std::vector<std::future<Result<fs::path>>> askers;
  for (int i = 0; i < kLayerWaitersMax + 3; ++i)
    askers.push_back(std::async(std::launch::async, [&] { return layers.find(form("a"), 60s); }));
  const auto refused = [&] {
    return std::ranges::count_if(askers, [](auto& one) { return one.wait_for(0s) == std::future_status::ready; });
  };
  while (refused() < 3) std::this_thread::sleep_for(1ms);
  go.set_value();
  int good = 0;
  for (auto& asker : askers) good += asker.get() ? 1 : 0;
  EXPECT_EQ(good, kLayerWaitersMax);
}

TEST_F(Layers, AFailureIsToldToAllAndLeavesNothing) {
  int tries = 0;
  PackageLayers layers(directory_, [&](const auto&, const fs::path& place, const auto&, auto) -> Result<void> {
    ++tries;
    CAPSTAN_CHECK(write_file_atomic(place / "half", "x"));
    return fail(Code::kUnavailable, "ERROR: no such package");
  });
  for (int i = 0; i < 2; ++i) {  // the second time within the pause
    const auto found = layers.find(form("a"), 10s);
    ASSERT_FALSE(found);
    EXPECT_NE(found.error().message.find("template t: its packages could not be installed: ERROR: no such"), std::string::npos);
  }
  EXPECT_EQ(tries, 1);
  EXPECT_EQ(layers.state(form("a")).kind, Kind::kFailed);
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_), {}), 0);
}

TEST_F(Layers, AnInstallationIsStoppedWithItsServer) {
  std::atomic<bool> begun = false;
  auto layers = std::make_unique<PackageLayers>(directory_, [&](const auto&, const auto&, const auto&, std::stop_token stop) {
    begun = true;
    while (!stop.stop_requested()) std::this_thread::sleep_for(1ms);
    return fail(Code::kUnavailable, "stopped");
  });
  (void)layers->find(form("a"), 0ms);
  while (!begun) std::this_thread::sleep_for(1ms);
  layers.reset();
}

TEST_F(Layers, ChangedWheelsAreAnotherLayer) {
  fs::create_directories(directory_ / "wheels");
  Template form = this->form("a");
  form.packages.wheels = directory_ / "wheels";
  const std::string before = *layer_key(form);
  EXPECT_EQ(before, *layer_key(form));
  ASSERT_TRUE(write_file_atomic(directory_ / "wheels/a.whl", "1"));
  EXPECT_NE(before, *layer_key(form));
  form.packages.wheels = "/no/such/place";
  EXPECT_EQ(layer_key(form).error().code, Code::kNotFound);
}

// A wheel of a package `greet` with a module and a program, made by hand.
class Pip : public Sessions {
 protected:
  void SetUp() override {
    Sessions::SetUp();
    if (IsSkipped()) return;
    if (std::system("/usr/bin/python3 -c 'import pip' 2>/dev/null || ls /usr/share/python-wheels/pip-*.whl >/dev/null 2>&1") != 0)
      GTEST_SKIP() << "this host has no pip; Debian's python3-pip-whl would do";
    fs::create_directories(wheels());
    const std::string make = R"(/usr/bin/python3 - <<'END'
import zipfile
files = {"greet.py": "def hello():\n    print('hello from', __file__)\n",
         "greet-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: greet\nVersion: 1.0\n",
         "greet-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
         "greet-1.0.dist-info/entry_points.txt": "[console_scripts]\ngreet = greet:hello\n"}
files["greet-1.0.dist-info/RECORD"] = "".join(name + ",,\n" for name in [*files, "greet-1.0.dist-info/RECORD"])
with zipfile.ZipFile(")" + wheel().string() + R"(", "w") as archive:
    for name, text in files.items():
        archive.writestr(name, text)
END)";
    ASSERT_EQ(std::system(make.c_str()), 0);
  }
  fs::path wheels() const { return directory_ / "wheels"; }
  fs::path wheel() const { return wheels() / "greet-1.0-py3-none-any.whl"; }
};

TEST_F(Pip, WheelsOfThisHostAreThereForCommandsLoginShellsAndCode) {
  template_file("greets", R"({"packages": {"python": ["greet==1.0"], "wheels": ")" + wheels().string() + R"("}})");
  const auto session = make({.template_name = "greets"});
  ASSERT_TRUE(session);
  const std::string hello = "hello from /mnt/packages/greet.py\n";
  EXPECT_EQ(shell(session, "python3 -c 'import greet; greet.hello()'"), hello);
  EXPECT_EQ(shell(session, "greet; bash -lc greet; PATH=/usr/bin:/bin bash -c greet"), hello + hello + hello);
  const std::string told = run_code(session, "import greet; greet.hello()\n!greet");
  EXPECT_NE(told.find("hello from /mnt/packages/greet.py"), told.rfind("/mnt/packages/greet.py") - 11) << told;  // both
  EXPECT_EQ(shell(session, "touch /mnt/packages/x 2>/dev/null || echo read-only; ls -A /mnt"), "read-only\npackages\n");
  EXPECT_EQ(shell(make(), "python3 -c 'import greet' 2>/dev/null || echo absent"), "absent\n");
  EXPECT_EQ(manager_->layers().state(*manager_->templates().read("greets")).kind, Kind::kReady);
  const auto mine = make({.template_name = "greets", .env = {{"PYTHONPATH", "/work"}, {"PATH", "/usr/bin:/bin"}}});
  EXPECT_EQ(shell(mine, "greet; echo $PYTHONPATH"), hello + "/work:/mnt/packages\n");
  // Another start finds the layer, and removes it when no template lists it.
  ASSERT_TRUE(manager_->end(session->id(), Owner{}));
  open({});
  EXPECT_EQ(shell(make({.template_name = "greets"}), "greet"), hello);
  fs::remove(directory_ / "templates/greets.json");
  open({});
  EXPECT_TRUE(fs::is_empty(directory_ / "layers"));
}

TEST_F(Pip, SaysWhatItCouldNotFind) {
  template_file("wrong", R"({"packages": {"python": ["greet==2.0"], "wheels": ")" + wheels().string() + R"("}})");
  const auto made = manager_->create({.template_name = "wrong"});
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find("No matching distribution found for greet==2.0"), std::string::npos)
      << made.error().message;
  template_file("gone", R"({"packages": {"python": ["greet"], "wheels": "/no/such/directory"}})");
  EXPECT_EQ(manager_->create({.template_name = "gone"}).error().code, Code::kNotFound);
}

TEST_F(Pip, AnIndexIsReachedThroughTheProxyAndNothingElseIs) {
  std::atomic<int> asked = 0;
  http::Router router;
  router.add("GET", "/simple/greet/", [&](const http::Request&, const http::ResponseWriterPtr& writer) {
    ++asked;
    writer->respond(http::Response::text(200, "<a href=\"/files/greet-1.0-py3-none-any.whl\">greet</a>", "text/html"));
  });
  router.add("GET", "/files/greet-1.0-py3-none-any.whl", [&](const http::Request&, const http::ResponseWriterPtr& writer) {
    ++asked;
    writer->respond(http::Response::text(200, *read_file(wheel()), "application/octet-stream"));
  });
  const auto server = http::Server::start({}, router);
  ASSERT_TRUE(server);
  const std::string index = fmt::format("http://127.0.0.1:{}/simple", (*server)->port());
  template_file("indexed", R"({"packages": {"python": ["greet"], "index": ")" + index + R"("}, "warm": 1})");
  until("a warm one waits", [&] { return manager_->warm()["indexed"] == 1; });
  const auto session = make({.template_name = "indexed"});
  ASSERT_TRUE(session);
  EXPECT_EQ(shell(session, "greet"), "hello from /mnt/packages/greet.py\n");
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(shell(session, "echo $HTTPS_PROXY"), "\n");  // sessions have no network for it
  template_file("elsewhere", R"({"packages": {"python": ["greet>=1"], "index": ")" + index + R"(", "allow": ["other.test"]}})");
  const auto refused = manager_->create({.template_name = "elsewhere"});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("No matching distribution"), std::string::npos) << refused.error().message;
  EXPECT_EQ(asked, 2);
}

}  // namespace
}  // namespace capstan::agents
