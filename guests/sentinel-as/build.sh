#!/usr/bin/env bash
# Compiles moved.ts into the file $1. The compiler is the one that package-lock.json pins.
set -euo pipefail

wasm=$(realpath -m "$1")
cd "$(dirname "${BASH_SOURCE[0]}")"
asc=$(realpath -m ../target/tools/assemblyscript)

if ! cmp -s package-lock.json "$asc/package-lock.json"; then
    if ! node --version >/dev/null 2>&1 || ! npm --version >/dev/null 2>&1; then
        echo "sentinel-as needs Node.js 18 or later, with npm; on Debian: apt-get install nodejs npm" >&2
        exit 1
    fi
    rm -rf "$asc" "$asc.new"
    mkdir -p "$asc.new"
    cp package.json package-lock.json "$asc.new/"
    (cd "$asc.new" && npm ci --silent --ignore-scripts --no-audit --no-fund)
    mv "$asc.new" "$asc"
fi

node "$asc/node_modules/assemblyscript/bin/asc.js" moved.ts --runtime incremental -Oz --outFile "$wasm"
