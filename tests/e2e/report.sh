#!/bin/sh
# Goal: the HTML report of a scenario, opened in a browser, draws every chart and table and says nothing on the console.
. "$(dirname "$0")/lib.sh"
browser=$(command -v chromium || command -v chromium-browser || true)
[ -n "$browser" ] || skip "the report is not opened: there is no Chromium (Debian's package: chromium)"

# look FILE: the page's content once its script has run, in $scratch/page; what the console said in $scratch/console.
look() {
  timeout 120 "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --user-data-dir="$scratch/browser" \
    --enable-logging=stderr --virtual-time-budget=10000 --dump-dom "file://$1" >"$scratch/page" 2>"$scratch/log" \
    || fail "the browser ended with $?: $(tail -n 5 "$scratch/log")"
  grep -E 'CONSOLE|Uncaught' "$scratch/log" >"$scratch/console" || true
}
count() { grep -oE "$1" "$scratch/page" | wc -l; }

# The test can fail: a page whose script throws.
printf '<!doctype html><p>x<script>throw new Error("planted")</script>' >"$scratch/broken.html"
look "$scratch/broken.html"
grep -q planted "$scratch/console" || fail "an error on the console was not seen: $(tail -n 5 "$scratch/log")"

"$capstan" sim run examples/scenarios/lab.yaml --compare fair-share,fifo --quiet --report "$scratch/lab.html" >/dev/null 2>&1
look "$scratch/lab.html"
[ ! -s "$scratch/console" ] || fail "the console says: $(cat "$scratch/console")"
expect "the title" "lab" "$(grep -oE '<h1[^>]*>[^<]*' "$scratch/page")"
[ "$(count '<svg')" -ge 6 ] || fail "only $(count '<svg') charts"
[ "$(count '<(path|polyline|polygon)')" -ge 12 ] || fail "only $(count '<(path|polyline|polygon)') curves"
[ "$(count '<tr')" -ge 20 ] || fail "only $(count '<tr') rows of tables"
expect "both variants" "fifo" "$(cat "$scratch/page")"
grep -qE '(src|href)="https?://' "$scratch/lab.html" && fail "the report needs the network"

printf 'arrival_s,input_tokens,output_tokens\n0,1024,50\n0.5,1536,20\n90,600,30\n' >"$scratch/requests.csv"
"$capstan" sim serve "$scratch/requests.csv" --replicas 2 --report "$scratch/serve.html" >/dev/null
look "$scratch/serve.html"
[ ! -s "$scratch/console" ] || fail "the console says: $(cat "$scratch/console")"
expect "objectives" "Objectives met" "$(cat "$scratch/page")"
echo "report: all passed"
