#!/usr/bin/env bash
# Runs the integration tests: `run.sh` in full, `run.sh quick` with smaller counts, `run.sh direct` without the gateway.
# Anything after the mode goes to pytest; `run.sh full agentdojo` is the benchmark of exfiltration in full. The gateway is HOLDPOINT_BIN, else the release build, else the debug build.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache="${HOLDPOINT_CACHE:-$HOME/.cache/holdpoint}/integration"
mode=full
case "${1:-}" in full | quick | direct) mode=$1; shift ;; esac
if [ "${1:-}" = agentdojo ]; then exec "$here/agentdojo.sh" "$mode"; fi
"$here/setup.sh"
export HOLDPOINT_INTEGRATION_MODE=$mode PYTHONDONTWRITEBYTECODE=1
tests=("$here")
if [ "$mode" = direct ]; then tests=("$here/test_direct.py"); fi
cd "$here"
# A test named on the command line replaces the whole directory.
for each in "$@"; do case "$each" in test_*) tests=() ;; esac; done
exec "$cache/runner/bin/python" -m pytest -p no:cacheprovider --rootdir "$here" -q -ra --durations=12 ${tests[@]+"${tests[@]}"} "$@"
