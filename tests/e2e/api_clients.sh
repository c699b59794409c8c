#!/bin/sh
# Goal: unmodified clients of OpenAI's and Bedrock's APIs work. Method: tests/clients/*_test.mjs through the gateway, against the
# default model and against a scripted replica (agents and codex: the scripted one, their prompts are longer than abacus reads).
. "$(dirname "$0")/lib.sh"
clients=$(cd "$(dirname "$0")/../clients" && pwd)
code=0
sh "$clients/install.sh" || code=$?
[ "$code" -ne 77 ] || skip "the clients cannot be installed"
[ "$code" -eq 0 ] || fail "the installation of the clients ended with $code"
node=$clients/node_modules/node/bin/node

start_capstan
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

# answers MODEL: one small request succeeds.
answers() {
  curl -sf -o /dev/null -H 'Content-Type: application/json' "$base/v1/chat/completions" \
    --data "{\"model\": \"$1\", \"max_tokens\": 1, \"messages\": [{\"role\": \"user\", \"content\": \"What is 1 + 1?\"}]}"
}

# A real key, bearer and signing: what is signed is verified.
"$capstan" key add clients --signing >"$scratch/key" || fail "no key: $(cat "$scratch/key")"
CAPSTAN_API_KEY=$(grep -o 'sk-capstan-[A-Za-z0-9_-]*' "$scratch/key" | head -n 1)
AWS_ACCESS_KEY_ID=$(sed -n 's/^AWS_ACCESS_KEY_ID=//p' "$scratch/key")
AWS_SECRET_ACCESS_KEY=$(sed -n 's/^AWS_SECRET_ACCESS_KEY=//p' "$scratch/key")
export CAPSTAN_API_KEY AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY

# The SDK's default is HTTP/2 with prior knowledge.
export CAPSTAN_URL=$base
if ! curl -sf -o /dev/null --http2-prior-knowledge "$base/readyz"; then
  echo "HTTP/2 is not served: the AWS SDK is tested over HTTP/1.1 only"
  export CAPSTAN_HTTP2=0
fi
for model in abacus scripted; do
  wait_until 60 "$model answers" answers "$model"
  expected=57603
  [ "$model" = abacus ] || expected=
  CAPSTAN_MODEL=$model CAPSTAN_EXPECT=$expected "$node" --test --test-concurrency=2 "$clients/openai_api_test.mjs" "$clients/bedrock_test.mjs" \
    "$clients/frameworks_test.mjs" || fail "the clients against $model"
done
echo "api_clients: all passed"
