#!/usr/bin/env bash
# Compiles methods.c into the file $1. The compiler is the one that comes with Zig: one version for every machine, from the
# Python package that requirements.txt pins.
set -euo pipefail

wasm=$(realpath -m "$1")
cd "$(dirname "${BASH_SOURCE[0]}")"
tools=$(realpath -m ../target/tools)
zig=$tools/zig

if ! cmp -s requirements.txt "$zig/requirements.txt"; then
    if ! python3 -m pip --version >/dev/null 2>&1; then
        echo "sentinel-c needs pip to install its compiler; on Debian: apt-get install python3-pip" >&2
        exit 1
    fi
    rm -rf "$zig"
    python3 -m pip install --quiet --root-user-action=ignore --no-deps --require-hashes --only-binary :all: --target "$zig" -r requirements.txt
    # Last, so that it stands for a complete installation.
    cp requirements.txt "$zig/"
fi

export ZIG_GLOBAL_CACHE_DIR=$tools/zig-cache ZIG_LOCAL_CACHE_DIR=$tools/zig-cache
flags=(
    -target wasm32-freestanding -std=c17 -ffreestanding -nostdlib
    -Os -g0 -fno-sanitize=all
    -Wall -Wextra -Werror
    -Wl,--no-entry -Wl,--strip-all -Wl,-z,stack-size=16384
)
"$zig/ziglang/zig" cc "${flags[@]}" -o "$wasm" methods.c
