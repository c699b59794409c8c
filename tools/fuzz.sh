#!/bin/sh
# Runs every fuzzer (`*_fuzz.cc`) under libFuzzer with address and undefined-behaviour checks: tools/fuzz.sh BUILD SECONDS [NAME…]
# Needs clang 19 (packages.txt, stage fuzz: apt-get install clang-19 libclang-rt-19-dev); CXX names another clang.
# A finding stops its fuzzer and stands in BUILD/findings; the corpus grows in BUILD/corpus and serves the next run.
set -eu
cd "$(dirname "$0")/.."
build=$1 seconds=$2
shift 2
cxx=${CXX:-clang++-19}
command -v "$cxx" >/dev/null || { echo "make fuzz needs $cxx: apt-get install clang-19 libclang-rt-19-dev"; exit 1; }
cmake -S . -B "$build" -G Ninja -DCMAKE_CXX_COMPILER="$cxx" -DCAPSTAN_FUZZ=ON >/dev/null
names=${*:-$(git grep -ho 'capstan_fuzz([a-z0-9_]*' -- 'src/*CMakeLists.txt' | sed 's/.*(//')}
ninja -C "$build" $names
mkdir -p "$build/findings"
failed=0
for name in $names; do
  mkdir -p "$build/corpus/$name"
  echo "== $name, $seconds s"
  "$build/bin/$name" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=4096 -max_len=8192 -print_final_stats=1 \
    -artifact_prefix="$build/findings/$name-" "$build/corpus/$name" >"$build/$name.log" 2>&1 || failed=1
  grep -E "number_of_executed_units|ERROR|SUMMARY|Test unit written" "$build/$name.log" || true
done
exit $failed
