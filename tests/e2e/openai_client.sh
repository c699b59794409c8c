#!/bin/sh
# Goal: the official `openai` client works unchanged. Method: tests/clients/openai_chat_test.mjs through the gateway, first
# against the default model, then against a scripted replica that Capstan runs as a service.
. "$(dirname "$0")/lib.sh"
clients=$(cd "$(dirname "$0")/../clients" && pwd)
code=0
sh "$clients/install.sh" || code=$?
[ "$code" -ne 77 ] || skip "the clients cannot be installed"
[ "$code" -eq 0 ] || fail "the installation of the clients ended with $code"
node=$clients/node_modules/node/bin/node

start_capstan
export CAPSTAN_BASE_URL=$base/v1 CAPSTAN_GATEWAY=1 CAPSTAN_TOOLS=1

# answers MODEL: one small request succeeds.
answers() {
  curl -sf -o /dev/null -H 'Content-Type: application/json' "$base/v1/chat/completions" \
    --data "{\"model\": \"$1\", \"max_tokens\": 1, \"messages\": [{\"role\": \"user\", \"content\": \"What is 1 + 1?\"}]}"
}

wait_until 60 "abacus answers" answers abacus
CAPSTAN_MODEL=abacus "$node" "$clients/openai_chat_test.mjs" || fail "the openai client against abacus"

user=
if [ "$(id -u)" -eq 0 ]; then user="user: root"; fi
cat >"$scratch/scripted.yaml" <<YAML
kind: service
name: scripted
model_name: scripted
resources: {cpus: 0.1}
command: ["$node", "$clients/scripted_engine.mjs"]
health: {path: /health}
$user
YAML
expect "apply" "service/scripted created" "$("$capstan" apply -f "$scratch/scripted.yaml")"
wait_until 30 "the scripted replica answers" answers scripted
CAPSTAN_MODEL=scripted CAPSTAN_EXPECT='' "$node" "$clients/openai_chat_test.mjs" || fail "the openai client against the scripted replica"
echo "openai_client: all passed"
