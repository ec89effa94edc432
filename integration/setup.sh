#!/usr/bin/env bash
# Installs the real clients, servers and collector that the integration tests run, outside the checkout.
# A part is installed again only when its pins change: each has a marker named by a hash of what pins it.
# `setup.sh NAME…` installs only the parts of these names.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache="${HOLDPOINT_CACHE:-$HOME/.cache/holdpoint}/integration"
wanted="$*"
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9 # two checkouts may set up at once

# marker NAME FILE…: the file that exists when NAME is installed exactly as FILE… pin it.
marker() {
    local name=$1
    shift
    echo "$cache/.$name-$(cat "$@" | sha256sum | cut -c1-16)"
}

# part NAME FUNCTION FILE…: runs FUNCTION unless its marker is there.
part() {
    local name=$1 install=$2
    shift 2
    case " $wanted " in "  " | *" $name "*) ;; *) return ;; esac
    local done_file
    done_file=$(marker "$name" "$@")
    if [ -e "$done_file" ]; then return; fi
    echo "setup: installing $name"
    rm -f "$cache/.$name-"*
    logged "$name" "$install"
    touch "$done_file"
}

# logged NAME FUNCTION: runs FUNCTION with its output in a log, and shows the log's end if any command of it fails.
# Not `FUNCTION || …`: there, the shell would go on after a failure inside the function.
logged() {
    local status=0 log="$cache/$1.log"
    set +e
    (set -e; "$2") >"$log" 2>&1
    status=$?
    set -e
    if [ $status -ne 0 ]; then
        tail -n 40 "$log" >&2
        echo "setup: $1 could not be installed; the whole log is $log" >&2
        exit 1
    fi
}

# venv NAME: a virtual environment with exactly what pins/NAME.txt says.
venv() {
    rm -rf "${cache:?}/$1"
    python3 -m venv "$cache/$1"
    "$cache/$1/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/pins/$1.txt"
    "$cache/$1/bin/pip" check
}
runner() { venv runner; }
python1() { venv python1; }
python2() { venv python2; }
kubernetes() { venv kubernetes; }
webhooks() { venv webhooks; }

# Without what agentdojo needs to ask models: nothing here asks any, and it would be twice as much.
agentdojo() {
    rm -rf "${cache:?}/agentdojo"
    python3 -m venv "$cache/agentdojo"
    "$cache/agentdojo/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/pins/agentdojo.txt"
}

node_packages() {
    rm -rf "$cache/node"
    mkdir -p "$cache/node"
    cp "$here/node/package.json" "$here/node/package-lock.json" "$cache/node/"
    cd "$cache/node"
    npm ci --no-fund --no-audit --ignore-scripts
}

# The MCP Inspector wants a newer Node.js than most systems have, so it brings one.
inspector() {
    rm -rf "$cache/inspector"
    mkdir -p "$cache/inspector"
    cp "$here/inspector/package.json" "$here/inspector/package-lock.json" "$cache/inspector/"
    cd "$cache/inspector"
    npm ci --no-fund --no-audit --ignore-scripts
}

# The official conformance suite, which runs on that Node.js too.
conformance() {
    rm -rf "$cache/conformance"
    mkdir -p "$cache/conformance"
    cp "$here/conformance/package.json" "$here/conformance/package-lock.json" "$cache/conformance/"
    cd "$cache/conformance"
    npm ci --no-fund --no-audit --ignore-scripts
}

# A real OpenID provider, to which people log in.
oidc() {
    rm -rf "$cache/oidc"
    mkdir -p "$cache/oidc"
    cp "$here/oidc/package.json" "$here/oidc/package-lock.json" "$cache/oidc/"
    cd "$cache/oidc"
    npm ci --no-fund --no-audit --ignore-scripts
}

# The reference upstream and the rmcp agent. What was built before is kept, so that a change builds only what it touches.
reference() {
    cd "$here/reference"
    CARGO_TARGET_DIR="$cache/reference" cargo build --locked --quiet
}

# The official collector, put together by its own builder from modules of the Go proxy.
collector() {
    rm -rf "$cache/collector"
    mkdir -p "$cache/collector"
    cp "$here/collector/builder.yaml" "$cache/collector/"
    cd "$cache/collector"
    local version
    version=$(sed -n 's/^# builder: //p' builder.yaml)
    CGO_ENABLED=0 GOFLAGS= go run "go.opentelemetry.io/collector/cmd/builder@$version" --config builder.yaml
    "$cache/collector/build/otelcol-holdpoint" --version
}

# How Go and Rust read a request. Node.js and Python do so without a build.
readers() {
    rm -rf "$cache/readers"
    mkdir -p "$cache/readers"
    cp -r "$here/differentials/go" "$here/differentials/rust" "$cache/readers/"
    (cd "$cache/readers/go" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -o "$cache/readers/go-reader" .)
    cd "$cache/readers/rust"
    CARGO_TARGET_DIR="$cache/readers/target" cargo build --locked --quiet
    mv "$cache/readers/target/debug/reader" "$cache/readers/rust-reader"
    rm -rf "$cache/readers/target"
}

# JSONTestSuite, all 318 files byte for byte: they are in the tests of a Go module, which go.sum pins.
jsontestsuite() {
    rm -rf "$cache/jsontestsuite"
    mkdir -p "$cache/jsontestsuite"
    cd "$here/differentials/go"
    local module
    module=$(GOFLAGS=-mod=readonly go mod download -json github.com/dpb587/inspectjson-go | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    tar -xzf "$module/testsuites/nst-JSONTestSuite/testdata.tar.gz" -C "$cache/jsontestsuite" ./LICENSE ./test_parsing
    [ "$(find "$cache/jsontestsuite/test_parsing" -name '*.json' | wc -l)" = 318 ]
}

# Debian's nginx, curl, openssl and Chromium; promtool, and what network tests need. Packages would start an nginx and a Prometheus of
# their own: policy-rc.d forbids that for the moment.
debian() {
    local policy=/usr/sbin/policy-rc.d made=no
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        made=yes
    fi
    if [ $made = yes ]; then trap "rm -f $policy" EXIT; fi
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nginx-light curl openssl ca-certificates \
        prometheus nftables iproute2 dnsmasq-base systemd chromium fonts-dejavu-core
}

# debian_is_there: whether every program of those packages is.
debian_is_there() {
    local program
    for program in /usr/sbin/nginx curl openssl promtool nft ip dnsmasq systemd-analyze chromium; do
        command -v "$program" >/dev/null || return 1
    done
}

for tool in python3 node npm go cargo; do
    command -v $tool >/dev/null || { echo "setup: $tool is needed and is not installed" >&2; exit 1; }
done
if [ -z "$wanted" ] && ! PATH="$PATH:/usr/sbin" debian_is_there; then
    echo "setup: installing nginx, curl, openssl, promtool, nft, ip, dnsmasq, systemd-analyze and chromium"
    logged debian debian
fi
part runner runner "$here/pins/runner.txt"
part python1 python1 "$here/pins/python1.txt"
part python2 python2 "$here/pins/python2.txt"
part kubernetes kubernetes "$here/pins/kubernetes.txt"
part webhooks webhooks "$here/pins/webhooks.txt"
part agentdojo agentdojo "$here/pins/agentdojo.txt"
part node node_packages "$here/node/package.json" "$here/node/package-lock.json"
part inspector inspector "$here/inspector/package.json" "$here/inspector/package-lock.json"
part conformance conformance "$here/conformance/package.json" "$here/conformance/package-lock.json"
part oidc oidc "$here/oidc/package.json" "$here/oidc/package-lock.json"
part reference reference "$here/reference/Cargo.toml" "$here/reference/Cargo.lock" "$here"/reference/src/*/*.rs
part collector collector "$here/collector/builder.yaml"
part readers readers "$here/differentials/go/"* "$here/differentials/rust/Cargo.lock" "$here/differentials/rust/src/main.rs"
part jsontestsuite jsontestsuite "$here/differentials/go/go.sum"
echo "setup: everything is in $cache"
