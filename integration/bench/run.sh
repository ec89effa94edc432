#!/usr/bin/env bash
# Runs the benchmark: `run.sh` in full, `run.sh --quick` with short durations, `run.sh --rows tools_call,http_small`.
# `run.sh --growth` measures instead how cost grows; `--quick`, `--only policies,records` and `--draw` may follow.
# The gateway is HOLDPOINT_BIN, else the release build. Results go to stdout and, as JSON, to the cache directory.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/setup.sh"
export PYTHONDONTWRITEBYTECODE=1
cache="${HOLDPOINT_CACHE:-$HOME/.cache/holdpoint}/integration"
program=main.py
if [ "${1:-}" = --growth ]; then
    program=growth.py
    shift
fi
exec "$cache/runner/bin/python" "$here/$program" "$@"
