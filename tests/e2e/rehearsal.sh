#!/bin/sh
# Goal: a fleet that is only there to be rehearsed: gangs are placed, wait and run on hosts that do not exist, also over a restart.
. "$(dirname "$0")/lib.sh"
start_capstan --bare
expect "the lab" "46 hosts added" "$("$capstan" fleet apply -f examples/fleets/lab.yaml --present)"
"$capstan" apply -f examples/gangs.yaml >/dev/null
wait_until 20 "pretrain runs on both UltraServers" state_is pretrain running
expect "finetune waits for it" "16 hosts are kept for it, none free yet: job pretrain ends by itself" \
  "$("$capstan" explain finetune)"
printf 'kind: tasks\nname: many\ncount: 1000\ncommand: "true"\n' >"$scratch/many.yaml"
"$capstan" apply -f "$scratch/many.yaml" >/dev/null
wait_until 20 "many is done" state_is many succeeded

kill -INT "$up_pid"; wait "$up_pid" || true
start_capstan --bare
expect "it still runs" "pretrain +job +running +32/32" "$("$capstan" get)"
"$capstan" cancel pretrain >/dev/null
wait_until 20 "finetune runs" state_is finetune running
"$capstan" down >/dev/null
wait "$up_pid" || fail "up ended with $?"
up_pid=
echo "rehearsal: all passed"
