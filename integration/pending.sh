#!/usr/bin/env bash
# Ten thousand calls that wait for people at once: memory, latency of an approval, and that each ends as decided.
# The gateway is HOLDPOINT_BIN, else the release build, else the debug build; an argument replaces the number.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache="${HOLDPOINT_CACHE:-$HOME/.cache/holdpoint}/integration"
"$here/setup.sh"
export PYTHONDONTWRITEBYTECODE=1
exec "$cache/runner/bin/python" "$here/pending.py" "$@"
