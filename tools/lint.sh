#!/bin/sh
# Lint: what the compiler cannot know about this house. Prints file:line: what is wrong; fails if anything is.
#
#   arrows    an #include against the directions of docs/ARCHITECTURE.md
#   bans      clocks, randomness, threads, I/O, hash-map iteration, floating point in the deterministic core
#   sizes     files past 500 lines (tests 800) and functions past 70, unless tools/lint-allowed.txt lists them: may shrink, never grow
#   words     leftovers that a finished project does not hold
set -u
cd "$(dirname "$0")/.." || exit 1
found=$(mktemp)
trap 'rm -f "$found"' EXIT
sources=$(git ls-files --cached --others --exclude-standard 'src/*.h' 'src/*.cc' 'tests/*.h' 'tests/*.cc')

# folder: folders that it may include (its own always).
arrows='
base:
fleet: base
workload: fleet base
scheduler: workload fleet base
capacity: workload fleet base
protocol: workload fleet base
sql: base
journal: sql base
controller: scheduler capacity protocol workload fleet journal base
routing: base
http: base
sandbox: base
store: sql base
harmony: base
engine: harmony http base
trainer: harmony engine base
worker: sandbox protocol http base
hosts: protocol http base
sim: controller protocol routing scheduler capacity journal workload fleet base
api: controller store http scheduler protocol workload fleet journal base
gateway: routing harmony store http base
agents: sandbox workload fleet http store base
cli: http base
'
for file in $sources; do
  case $file in
    src/apps/*|tests/*) continue ;;
  esac
  folder=${file#src/}; folder=${folder%%/*}
  allowed=$(printf '%s' "$arrows" | sed -n "s/^$folder://p")
  sed -n 's/^#include "\([a-z_0-9]*\)\/.*/\1/p' "$file" | sort -u | while read -r target; do
    [ "$target" = "$folder" ] && continue
    case " $allowed " in *" $target "*) continue ;; esac
    [ -d "src/$target" ] && echo "$file: includes $target/, which $folder/ may not know (see docs/ARCHITECTURE.md)"
  done
  # Asio and Beast stay in http/; the trainer takes only tensors of the engine; only the engine's server speaks HTTP.
  case $file in src/http/*) ;; *) grep -nE '#include <boost/(asio|beast)' "$file" | sed "s|^|$file:|; s|$|  (only http/ includes Asio or Beast)|" ;; esac
  case $file in
    src/trainer/*) grep -nE '#include "engine/' "$file" | grep -v '"engine/tensor/' | sed "s|^|$file:|; s|$|  (the trainer knows only engine/tensor)|" ;;
    src/engine/server/*) ;;
    src/engine/*) grep -nE '#include "(http|harmony)/' "$file" | sed "s|^|$file:|; s|$|  (only the engine's server knows http and harmony)|" ;;
  esac
done >>"$found"

# The deterministic core: everything in these folders but tests, the journal's files and the controller's driver loop.
core=$(printf '%s\n' $sources | grep -E '^src/(fleet|workload|scheduler|capacity|protocol|controller|routing)/' | grep -vE '_(test|bench|fuzz)\.cc$|^src/controller/driver|^src/controller/failure_detector')
bans='std::chrono::(system|steady|high_resolution)_clock|[^_a-z]time\(|gettimeofday|clock_gettime|[^_a-z]s?rand\(|random_device|_distribution|std::(jthread|thread|mutex|async|condition_variable)|#include <(fstream|iostream|thread|mutex|random|unordered_map|unordered_set|sys/|unistd|fcntl)|std::unordered_|getenv\('
for file in $core; do
  sed 's|//.*||' "$file" | grep -nE "$bans" | sed "s|^|$file:|; s|$|  (banned in the deterministic core)|"
done >>"$found"
for file in $(printf '%s\n' $core | grep -E '^src/(scheduler|controller|routing|fleet|protocol)/'); do
  sed 's|//.*||; s|"[^"]*"||g' "$file" | grep -nE '(^|[^_a-zA-Z])(float|double)([^_a-zA-Z]|$)' | sed "s|^|$file:|; s|$|  (no floating point in decisions)|"
done >>"$found"

# Sizes. A function is what starts at column 0 (or in a class, is too small to matter) and ends with '}' at column 0.
allowed_size() { awk -v key="$1" '!/^#/ && $1 == key { print $2 }' tools/lint-allowed.txt 2>/dev/null; }
for file in $sources; do
  lines=$(wc -l <"$file")
  limit=500
  case $file in *_test.cc|tests/*) limit=800 ;; esac
  over=$(allowed_size "$file")
  [ "$lines" -gt "${over:-$limit}" ] && echo "$file: $lines lines, the limit is ${over:-$limit}"
  awk -v file="$file" '
    /^[A-Za-z_].*\) *(const|noexcept|override|->.*)* *\{$/ || /^[A-Za-z_ ].*\{$/ { if ($0 !~ /^ *(namespace|struct|class|enum|union|extern|constexpr|inline constexpr|const |static const)/) { start = NR; head = $0 } }
    /^\}/ { if (start && NR - start > 70) printf "%s:%d: function of %d lines, the limit is 70: %s\n", file, start, NR - start, substr(head, 1, 60); start = 0 }
    length($0) > 130 { printf "%s:%d: line of %d characters, the limit is 130\n", file, NR, length($0) }
    /[ \t]+$/ { printf "%s:%d: blanks at the end of the line\n", file, NR }
    /\t/ { printf "%s:%d: a tab\n", file, NR }
  ' "$file" | while IFS= read -r line; do
    place=$(printf '%s' "$line" | sed -n 's/^\([^:]*\):\([0-9]*\): function of \([0-9]*\) lines.*: \(.*\)$/\1/p')
    if [ -n "$place" ] && grep -qF "$(printf '%s' "$line" | sed 's/.*limit is 70: //')" tools/lint-allowed.txt 2>/dev/null; then continue; fi
    printf '%s\n' "$line"
  done
  case $file in *-inl.h) ;; *.h) grep -q '^#pragma once' "$file" || echo "$file: no #pragma once" ;; esac
done >>"$found"

# A word is split in the pattern so that this file does not hold it.
git grep -nIE '\b(TO''DO|FIX''ME|XX''X)\b|not imple''mented|place''holder' -- ':!docs/decisions' ':!*package-lock.json' >>"$found" 2>/dev/null

if [ -s "$found" ]; then
  sort -u "$found"
  echo "lint: $(sort -u "$found" | wc -l) findings"
  exit 1
fi
echo "lint: clean ($(printf '%s\n' $sources | wc -l) files)"
