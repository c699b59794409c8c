#!/bin/sh
# Goal: the Responses API's code interpreter works with the default model for the unmodified `openai` client, its containers
# are sessions of the key's project, metered as such. Method: tests/clients/openai_code_test.mjs against `capstan up`. Where
# the host cannot enforce sandboxes, that it is refused with why.
. "$(dirname "$0")/lib.sh"
clients=$(cd "$(dirname "$0")/../clients" && pwd)
start_capstan
wait_until 60 "abacus is served" sh -c "curl -sf $base/v1/chat/completions -d '{\"model\":\"abacus\",\"messages\":[{\"role\":\"user\",\"content\":\"1+1\"}]}'"
tool='"tools":[{"type":"code_interpreter","container":{"type":"auto"}}]'
if ! "$capstan" sandbox check >/dev/null 2>&1; then
  refused=$(curl -s "$base/v1/responses" -d "{\"model\":\"abacus\",\"input\":\"1+1\",$tool}")
  expect "without sandboxes it is refused" 'code_interpreter is not available: ' "$refused"
  skip "this host cannot enforce sandboxes; the refusal is as it should be"
fi
code=0
sh "$clients/install.sh" || code=$?
[ "$code" -ne 77 ] || skip "the clients cannot be installed"
[ "$code" -eq 0 ] || fail "the installation of the clients ended with $code"

"$capstan" org add acme >/dev/null; "$capstan" project add acme/web >/dev/null
key=$("$capstan" key add ci --project acme/web | grep -o 'sk-capstan-[A-Za-z0-9_-]*' | head -n 1)
CAPSTAN_URL=$base CAPSTAN_API_KEY=$key "$clients/node_modules/node/bin/node" --test --test-concurrency=1 \
  "$clients/openai_code_test.mjs" >"$scratch/client.log" 2>&1 || { cat "$scratch/client.log" >&2; fail "the client"; }

# Another project does not reach the container; its session is metered under its project.
container=$(curl -s "$base/v1/responses" -H "authorization: Bearer $key" \
  -d "{\"model\":\"abacus\",\"input\":\"What is 123456789 * 987654321?\",\"temperature\":0,$tool}" | grep -o 'cntr_[0-9a-f]*' | head -n 1)
status=$(curl -s -o "$scratch/body" -w '%{http_code}' "$base/v1/responses" \
  -d "{\"model\":\"abacus\",\"input\":\"1+1\",\"tools\":[{\"type\":\"code_interpreter\",\"container\":\"$container\"}]}")
[ "$status" = 404 ] || fail "another project's container: $status $(cat "$scratch/body")"
expect "no session of the default project" '^$' "$("$capstan" session list | grep base || true)"
sessions() { curl -s -H "X-API-Key: $key" "$base/v2/sandboxes" | grep -o '"sandboxID":"[^"]*' | cut -d '"' -f 4; }
[ "$(sessions | wc -l)" -ge 3 ] || fail "the containers are no sessions of the project"
for id in $(sessions); do curl -s -X DELETE -H "X-API-Key: $key" "$base/sandboxes/$id"; done
usage_shows() { "$capstan" usage --by project | grep -qE "acme/web +sandbox +[1-9]"; }
wait_until 30 "usage shows the containers" usage_shows
turns=$(grep -c '"path":"/v1/chat/completions"' "$CAPSTAN_DATA_DIR/log/access.log")
[ "$turns" -ge 8 ] || fail "each turn has its line in the access log: $turns"
# A conversation whose container is gone gets a new one.
answers() { curl -sf "$base/v1/responses" -H "authorization: Bearer $key" \
  -d "{\"model\":\"abacus\",\"input\":\"What is 123456789 * 987654321?\",\"temperature\":0,$tool}" | grep -q 121932631112635269; }
wait_until 30 "a container is there again" answers
echo "code_interpreter: all passed"
