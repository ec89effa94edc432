#!/usr/bin/env bash
# Runs the official conformance suite against the reference upstream, directly and through the gateway, and compares.
# The gateway is HOLDPOINT_BIN, else the release build, else the debug build; HOLDPOINT_SHIM=nginx replaces `connect`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache="${HOLDPOINT_CACHE:-$HOME/.cache/holdpoint}/integration"
"$here/setup.sh"
export PYTHONDONTWRITEBYTECODE=1
exec "$cache/runner/bin/python" "$here/conformance_suite.py"
