#!/bin/sh
# Goal: the simulator as people use it: scenarios to summaries, JSON and reports, the same twice; a live controller's journal
# decided again; requests against replicas; and what wrong files get.
. "$(dirname "$0")/lib.sh"
unset CAPSTAN_DATA_DIR  # until the live run

# A week of the lab, the same twice.
"$capstan" sim run examples/scenarios/lab.yaml --compare fair-share --quiet --json "$scratch/a.json" --report "$scratch/lab.html" \
  >"$scratch/summary" 2>"$scratch/messages"
expect "the summary" "goodput +[0-9]" "$(cat "$scratch/summary")"
"$capstan" sim run examples/scenarios/lab.yaml --compare fair-share --quiet --json "$scratch/b.json" >/dev/null
cmp "$scratch/a.json" "$scratch/b.json" || fail "the same scenario gave other results"
"$capstan" sim run examples/scenarios/lab.yaml --compare fair-share --quiet --seed 7 --json - >"$scratch/c.json"
cmp -s "$scratch/a.json" "$scratch/c.json" && fail "another seed gave the same results"

# Requests.
printf 'arrival_s,input_tokens,output_tokens,hash_ids\n0,1024,50,1 2\n0.5,1536,20,1 2 3\n1,600,30,9 10\n' >"$scratch/requests.csv"
expect "requests" "kv-aware .* 32.4 %" "$("$capstan" sim serve "$scratch/requests.csv" --replicas 2 --policies kv-aware)"

# Wrong files are refused with their place, and nothing runs.
printf 'scenario: x\nduration: 1d\nfleet: nowhere.yaml\nworkloads: []\n' >"$scratch/wrong.yaml"
code=0; "$capstan" sim run "$scratch/wrong.yaml" 2>"$scratch/messages" || code=$?
[ "$code" -eq 2 ] || fail "a wrong scenario ended with $code"
expect "where" "wrong.yaml:3:" "$(cat "$scratch/messages")"
code=0; "$capstan" sim serve "$scratch/requests.csv" --model gpt-9 2>"$scratch/messages" || code=$?
[ "$code" -eq 2 ] || fail "an unknown model ended with $code"
expect "which there are" "gpt-oss-120b" "$(cat "$scratch/messages")"
code=0; "$capstan" sim replay "$scratch/requests.csv" 2>"$scratch/messages" || code=$?
[ "$code" -eq 1 ] || fail "what is not a journal ended with $code"

# A live run with a worker, a fleet of rehearsal, cancellations and a restart; then its journal.
export CAPSTAN_DATA_DIR="$scratch/data"
start_capstan
printf 'kind: job\nname: hello\ncommand: "echo hello"\n---\nkind: tasks\nname: many\ncount: 50\ncommand: "true"\n' >"$scratch/work.yaml"
"$capstan" apply -f "$scratch/work.yaml" >/dev/null
wait_until 30 "hello is done" state_is hello succeeded
wait_until 30 "many is done" state_is many succeeded
"$capstan" fleet apply -f examples/fleets/lab.yaml --present >/dev/null
"$capstan" apply -f examples/gangs.yaml >/dev/null
wait_until 30 "pretrain runs" state_is pretrain running
"$capstan" down >/dev/null; wait "$up_pid" || true
start_capstan
"$capstan" cancel pretrain >/dev/null
wait_until 30 "finetune runs" state_is finetune running
"$capstan" cancel finetune >/dev/null
"$capstan" down >/dev/null; wait "$up_pid" || true
up_pid=
journal=$(find "$scratch/data" -name '*.sqlite' -path '*journal*' | head -1)
[ -n "$journal" ] || fail "there is no journal in $(ls -R "$scratch/data")"
expect "the same decisions" "identical decisions" "$("$capstan" sim replay "$journal")"
expect "other orders are compared" "would have been decided otherwise|identical" "$("$capstan" sim replay "$journal" --order fifo)"
echo "simulation: all passed"
