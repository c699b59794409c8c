#!/bin/sh
# Goal: nobody starts processes who may not: no token, a wrong one, a web page (foreign Origin or Host), another user;
# and ranks are not root unless asked.
. "$(dirname "$0")/lib.sh"
start_capstan --bare
token=$(cat "$CAPSTAN_DATA_DIR/control.token")
status() { curl -s -o /dev/null -w '%{http_code}' "$@"; }

expect "no token" '^401$' "$(status "$base/api/v1/workloads")"
expect "wrong token" '^401$' "$(status -H 'Authorization: Bearer 00' "$base/api/v1/workloads")"
expect "right token" '^200$' "$(status -H "Authorization: Bearer $token" "$base/api/v1/workloads")"
expect "foreign origin" '^403$' "$(status -H "Authorization: Bearer $token" -H 'Origin: https://evil.example' "$base/api/v1/workloads")"
expect "foreign host" '^403$' "$(status -H "Authorization: Bearer $token" -H 'Host: evil.example' "$base/api/v1/workloads")"
expect "worker's token is no control token" '^401$' "$(status -H "Authorization: Bearer $(cat "$CAPSTAN_DATA_DIR/worker.token")" "$base/api/v1/workloads")"
expect "rebinding on inference" '^403$' "$(status -H 'Host: evil.example' "$base/v1/models")"
expect "data directory" '^700$' "$(stat -c %a "$CAPSTAN_DATA_DIR")"
expect "token file" '^600$' "$(stat -c %a "$CAPSTAN_DATA_DIR/control.token")"

if [ "$(id -u)" = 0 ]; then
  chmod 711 "$scratch"
  expect "another user's token" 'belongs to another user|denied' "$(setpriv --reuid 4242 --clear-groups "$capstan" get 2>&1 || true)"
  expect "ranks are not root" '^[1-9][0-9]*$' "$("$capstan" run -- id -u)"
  printf 'kind: job\nname: asroot\nuser: root\nresources: {cpus: 0.1}\ncommand: id -u\n' | "$capstan" apply -f - >/dev/null
  wait_until 20 "asroot ends" state_is asroot succeeded
  expect "root where asked" '^0$' "$("$capstan" logs asroot)"
  expect "the controller is not root" '^[1-9]' "$(stat -c %u "/proc/$(sed 's/.*"pid": *\([0-9]*\).*/\1/' "$CAPSTAN_DATA_DIR/controller.json")")"
fi
expect "wider bind without TLS" 'TLS' "$("$capstan" up --data-dir "$scratch/other" --host 0.0.0.0 --port $((port + 1)) 2>&1 || true)"
echo "security: all passed"
