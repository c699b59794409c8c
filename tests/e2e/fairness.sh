#!/bin/sh
# Goal: one key that floods the real gateway and engine does not make another one's trickle wait: its first token comes within
# what it takes alone and the step that the batch is in. Prints the figures, which are times of a shared machine: what fails
# is only a trickle whose median waits as long as the flood's.
. "$(dirname "$0")/lib.sh"
command -v node >/dev/null || skip "there is no node"
flooders=40  # more than a replica takes at once
asked=20
start_capstan --require-keys
answers() {
  curl -s -o /dev/null -w '%{http_code}' "$base/v1/chat/completions" -H 'content-type: application/json' -H "authorization: Bearer $1" \
    -d '{"model":"abacus","messages":[{"role":"user","content":"What is 1 + 1?"}],"max_tokens":2}' | grep -q '^200$'
}
# field JSON NAME
field() { echo "$1" | sed 's/.*"'"$2"'":\([0-9.]*\).*/\1/'; }

"$capstan" org add acme >/dev/null
for project in flood trickle; do "$capstan" project add acme/$project >/dev/null; done
fast_key=$("$capstan" key add k --project acme/flood 2>/dev/null)
slow_key=$("$capstan" key add k --project acme/trickle 2>/dev/null)
wait_until 60 "abacus answers" answers "$slow_key"

times=$(node "$(dirname "$0")/fairness.mjs" "$base" "$fast_key" "$slow_key" $flooders $asked) || fail "a request failed"
echo "milliseconds to the trickle's first token, alone and beside a flood of $flooders at once, and of a step of the batch: $times"
awk -v a="$(field "$times" beside_p50)" -v b="$(field "$times" flood_first_p50)" 'BEGIN { exit !(a < b) }' ||
  fail "the trickle waits as long as the flood"
