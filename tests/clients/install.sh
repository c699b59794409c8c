#!/bin/sh
# Installs the client tests' packages as package-lock.json pins them, if that has not happened yet.
# Exit code 77: skipped, because npm is absent or its registry cannot be reached. Two at once wait for each other.
set -eu
cd "$(dirname "$0")"
skip() { echo "SKIPPED: $*"; exit 77; }

command -v npm >/dev/null 2>&1 || skip "npm is not installed"
exec 9<package-lock.json
flock 9

wanted=$(cat package.json package-lock.json | sha256sum | cut -d ' ' -f 1)
stamp=node_modules/.capstan-stamp
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

output=$(mktemp)
trap 'rm -f "$output"' EXIT
if ! npm ci --no-audit --no-fund --fetch-retries=1 --fetch-timeout=60000 --silent --loglevel=error >"$output" 2>&1 9<&-; then
  if grep -qE 'ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|SELF_SIGNED_CERT|UNABLE_TO_(VERIFY|GET)|CERT_|ENETUNREACH|EHOSTUNREACH|SOCKET_TIMEOUT|code E(40[347]|5[0-9][0-9])' "$output"
  then
    skip "npm's registry cannot be reached: $(grep -m 1 -E 'npm (error|ERR!) code' "$output" || head -n 1 "$output")"
  fi
  cat "$output" >&2
  exit 1
fi
node_modules/node/bin/node --version >/dev/null || { echo "FAILED: the installed node does not run" >&2; exit 1; }
printf '%s\n' "$wanted" >"$stamp"
