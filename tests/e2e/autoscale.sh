#!/bin/sh
# Goal: a service goes from none to one replica for the first request, which waits for it, and back to none when nobody comes.
. "$(dirname "$0")/lib.sh"
start_capstan --bare
cat >"$scratch/zero.yaml" <<YAML
kind: service
name: zero
engine: {model: abacus}
replicas: 0
autoscale: {min: 0, max: 2, ttft: 2s, calm: 8s}
resources: {cpus: 0.1}
YAML
ready_is() { "$capstan" -o json get zero | tr -d ' \n' | grep -q "\"ready\":$1,\"wanted\":$1"; }
expect "apply" "service/zero created" "$("$capstan" apply -f "$scratch/zero.yaml")"
ready_is 0 || fail "it has replicas: $("$capstan" get)"
answer=$(curl -s --max-time 60 "$base/v1/chat/completions" -H 'Content-Type: application/json' \
  -d '{"model": "zero", "messages": [{"role": "user", "content": "What is 48217 + 9386?"}]}')
expect "the first request waits and is answered" 57603 "$answer"
ready_is 1 || fail "one replica served it: $("$capstan" get)"
wait_until 60 "nobody comes, so it goes" ready_is 0
expect "a number out of bounds" "may have 0 to 2 replicas" "$("$capstan" scale zero 3 2>&1)"
expect "by hand" "zero: 1 replicas" "$("$capstan" scale zero 1)"
wait_until 30 "it is back" ready_is 1
echo "autoscale: all passed"
