#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS (30), two at a time, and ends with an error when one finds something.
# `run.sh NAME…` runs only these. The corpus grows in the cache; a finding is kept in fuzz/artifacts.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache="${HOLDPOINT_CACHE:-$HOME/.cache/holdpoint}/fuzz"
seconds=${FUZZ_SECONDS:-30}
targets=("$@")
if [ $# = 0 ]; then targets=(flow framing http journal json jsonrpc sse); fi
mkdir -p "$cache"

version=0.13.2
if [ "$("$cache/bin/cargo-fuzz" --version 2>/dev/null)" != "cargo-fuzz $version" ]; then
    echo "fuzz: installing cargo-fuzz $version"
    cargo install --quiet --locked --root "$cache" cargo-fuzz@$version
fi
"$here/../integration/setup.sh" jsontestsuite
python3 "$here/seeds.py" "$cache/corpus" "${cache%/fuzz}/integration/jsontestsuite/test_parsing"

# Coverage needs flags that the stable compiler hides. No sanitizer: nothing here is unsafe.
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$cache/target" PATH="$cache/bin:$PATH"
cd "$here"
cargo fuzz build --sanitizer none

one() {
    local name=$1 log="$cache/$1.log"
    mkdir -p "$here/artifacts/$name"
    if "$CARGO_TARGET_DIR/$(rustc -vV | sed -n 's/host: //p')/release/$name" "$cache/corpus/$name" \
        -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$here/artifacts/$name/" >"$log" 2>&1; then
        echo "fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs, no finding"
    else
        tail -n 40 "$log"
        echo "fuzz $name: a finding; the whole log is $log"
        return 1
    fi
}
export -f one
export cache here seconds
printf '%s\n' "${targets[@]}" | xargs -P 2 -I{} bash -c 'one {}'
