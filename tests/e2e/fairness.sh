#!/bin/sh
# Goal: one key that floods the real gateway and engine does not make another one's trickle wait: the trickle's requests start
# before those of the flood that wait in the queue. Prints the p95 of the trickle's time to the first token alone and beside the flood.
. "$(dirname "$0")/lib.sh"
flooders=40  # more than a replica takes at once
asked=10
start_capstan --require-keys
question='{"model":"abacus","messages":[{"role":"user","content":"What is 48217 + 9386?"}],"max_tokens":200,"stream":true}'
# time_to_first_token KEY: seconds and status; a stream's head comes with its first event.
time_to_first_token() {
  curl -s -N -o /dev/null -w '%{time_starttransfer} %{http_code}\n' "$base/v1/chat/completions" \
    -H 'content-type: application/json' -H "authorization: Bearer $1" -d "$question"
}
answers() { time_to_first_token "$1" | grep -q ' 200$'; }
trickle() { for i in $(seq $asked); do time_to_first_token "$slow_key"; sleep 0.2; done; }
# percentile FILE PERCENT, in milliseconds
percentile() { sort -n "$1" | awk -v p="$2" '{ t[NR] = $1 } END { printf "%.1f", 1000 * t[int((NR * p + 99) / 100)] }'; }

"$capstan" org add acme >/dev/null
for project in flood trickle; do "$capstan" project add acme/$project >/dev/null; done
fast_key=$("$capstan" key add k --project acme/flood 2>/dev/null)
slow_key=$("$capstan" key add k --project acme/trickle 2>/dev/null)
wait_until 60 "abacus answers" answers "$slow_key"

trickle >"$scratch/alone"
: >"$scratch/flooding"
for i in $(seq $flooders); do
  (while [ -e "$scratch/flooding" ]; do time_to_first_token "$fast_key"; done >"$scratch/flood.$i") &
done
# All of its places are taken and some wait.
sleep 1
trickle >"$scratch/beside"
rm "$scratch/flooding"
for i in $(seq $flooders); do while [ ! -s "$scratch/flood.$i" ]; do sleep 0.1; done; done
cat "$scratch"/flood.* >"$scratch/flood"

for file in alone beside; do
  [ "$(grep -c ' 200$' "$scratch/$file")" = $asked ] || fail "a request of the trickle failed: $(cat "$scratch/$file")"
done
beside=$(percentile "$scratch/beside" 95)
flood=$(percentile "$scratch/flood" 50)
echo "trickle's time to the first token, p95: $(percentile "$scratch/alone" 95) ms alone, $beside ms beside a flood of $flooders at once, whose own p50 is $flood ms"
awk -v a="$beside" -v b="$flood" 'BEGIN { exit !(a < b) }' || fail "the trickle waits as long as the flood"
