#!/bin/sh
# Goal: the agent example works with the default model from one command, its score is printed, a run that is broken off goes
# on, and its recordings replay to the same steps in every mode.
. "$(dirname "$0")/lib.sh"
"$capstan" sandbox check >"$scratch/check" 2>&1 || skip "no sandboxes here: $(tail -n 1 "$scratch/check")"
start_capstan
wait_until 60 "abacus is served" sh -c "curl -sf $base/v1/chat/completions -d '{\"model\":\"abacus\",\"messages\":[{\"role\":\"user\",\"content\":\"1+1\"}]}'"
examples=$(pwd)/examples/agents
cd "$scratch"

expect "one agent runs Python by itself" '^answer  121932631112635269$' "$("$capstan" agent run -f "$examples/check-the-sum.yaml")"
expect "its recording is shown" 'python +print\(123456789 \* 987654321\)' "$("$capstan" agent show check-the-sum.run/1.jsonl)"

# Broken off after some episodes, then run to the end.
"$capstan" agent run -f "$examples/word-problems.yaml" >first.log 2>&1 &
run=$!
wait_until 60 "some episodes are recorded" sh -c '[ "$(ls word-problems.run/episodes/*.jsonl | wc -l)" -ge 5 ]'
kill -INT $run
wait $run && fail "a run that was broken off ended well"
summary=$("$capstan" agent run -f "$examples/word-problems.yaml" --json | tail -n 1)
expect "all episodes ended" '"episodes":58,"wanted":58,"failed":0' "$summary"
expect "the score is good" '"mean_score":(0\.9[0-9]*|1\.0)' "$summary"
expect "the model was asked again where the check failed" '"attempts":(5[9]|[6-9][0-9])' "$summary"
again=$("$capstan" agent run -f "$examples/word-problems.yaml")
expect "nothing runs twice" '58 of 58 episodes ended, 58 of them in an earlier run' "$again"
expect "the score is printed" '^mean score 0\.9|^mean score 1' "$again"

expect "the tools come to the same steps" '^18$' "$("$capstan" agent replay word-problems.run/episodes/000[05][0-9]-*.jsonl | grep -c ' the same$')"
expect "the recordings hold together" '^58$' "$("$capstan" agent replay --check word-problems.run | grep -c ' the same$')"
expect "the model gives the same, too" ' the same$' "$("$capstan" agent replay --ask word-problems.run/episodes/00020-0000.jsonl)"

# As scheduled tasks: two shards, then the sum.
if [ "$(id -u)" = 0 ]; then
  sed -e 's/^name: .*/name: scheduled/' -e "s|^tasks: .*|tasks: $examples/word-problems.jsonl|" "$examples/word-problems.yaml" >scheduled.yaml
  expect "it is submitted" "scheduled 2 tasks, 58 episodes" "$("$capstan" agent submit -f scheduled.yaml --shards 2)"
  wait_until 120 "the shards have ended" state_is scheduled succeeded
  expect "what the shards' sandboxes used is recorded, too" '^default/default +agent +1[1-9][0-9] ' "$("$capstan" usage --by project)"
  expect "the shards ran all episodes" '58 of 58 episodes ended, 58 of them in an earlier run' "$("$capstan" agent run -f scheduled.yaml)"
fi

# Under a key and at the catalogue's price: tokens, dollars and what the sandbox used are the project's.
expect "without a key they are the default project's" '^default/default +agent +[1-9]' "$("$capstan" usage --by project)"
"$capstan" org add acme >/dev/null; "$capstan" project add acme/web >/dev/null
"$capstan" key add ci --project acme/web | grep -o 'sk-capstan-[A-Za-z0-9_-]*' | head -n 1 >key
"$capstan" model add abacus --price-input 10 --price-output 100 >/dev/null
sed -e 's/^name: .*/name: paid/' -e 's/^model: .*/model: {name: abacus, temperature: 0, key_file: key}/' "$examples/check-the-sum.yaml" >paid.yaml
expect "it costs" '\$0\.0[0-9]*[1-9]' "$("$capstan" agent run -f paid.yaml)"
expect "its tokens are the project's" '^acme/web +[2-9] .*\$0\.0[0-9]*[1-9]' "$("$capstan" usage --by project)"
expect "its sandbox is the project's" '^acme/web +agent +1 ' "$("$capstan" usage --by project)"
sed -i 's/^budget: .*/budget: {steps: 6, tokens: 4000, dollars: 0.000001}/' paid.yaml
expect "a budget in dollars ends it" 'dollars' "$("$capstan" agent run -f paid.yaml || true)"
"$capstan" model add abacus --price-input 0 --price-output 0 >/dev/null
set +e
wrong=$("$capstan" agent run -f paid.yaml 2>&1); code=$?
set -e
expect "dollars without a price" "what tokens of 'abacus' cost is not known" "$wrong"
expect "and exit code 2" '^2$' "$code"

sed 's/"output":"121932631112635269"/"output":"121932631112635260"/' check-the-sum.run/1.jsonl >changed.jsonl
set +e
changed=$("$capstan" agent replay changed.jsonl); code=$?
set -e
expect "a changed output is found" "step 2 differs in 'output'" "$changed"
expect "and told by the exit code" '^1$' "$code"

sed 's/^tools: .*/tools: [pyton]/' "$examples/check-the-sum.yaml" >wrong.yaml
set +e
wrong=$("$capstan" agent run -f wrong.yaml 2>&1); code=$?
set -e
expect "a mistake has its place" "wrong.yaml:9:9: unknown tool 'pyton'; did you mean 'python'\?" "$wrong"
expect "and exit code 2" '^2$' "$code"
cd /
echo "agent: all passed"
