#!/usr/bin/env bash
# Real SDK clients in front of a call that waits for people for 330 seconds, all at once: a table.
# The gateway is HOLDPOINT_BIN, else the release build, else the debug build; an argument replaces the number.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache="${HOLDPOINT_CACHE:-$HOME/.cache/holdpoint}/integration"
"$here/setup.sh"
export PYTHONDONTWRITEBYTECODE=1
exec "$cache/runner/bin/python" "$here/patience.py" "$@"
