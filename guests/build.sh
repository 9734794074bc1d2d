#!/usr/bin/env bash
# Builds every guest into dist/NAME.wasm.
#
#   build.sh           build and copy
#   build.sh --check   build somewhere else and compare with dist/; exit 1 if a file differs
#
# The bytes depend on the sources, Cargo.lock and rust-toolchain.toml, and not on where the checkout, cargo's or rustup's
# directories are, nor on flags and profiles set outside.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
guests=$(pwd -P)
target=wasm32-wasip2

case "${1-}" in
"")
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$guests/target}
    ;;
--check)
    CARGO_TARGET_DIR=$(mktemp -d)
    export CARGO_TARGET_DIR
    trap 'rm -rf "$CARGO_TARGET_DIR"' EXIT
    ;;
*)
    echo "usage: build.sh [--check]" >&2
    exit 2
    ;;
esac

sysroot=$(rustc --print sysroot)
if [[ ! -d $sysroot/lib/rustlib/$target ]]; then
    rustup target add "$target"
fi

# Panic messages carry the paths of the sources they are in. The last flag that fits a path wins; the list of flags is
# separated by 0x1f, so that paths may have spaces.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
cargo fetch --locked --quiet
commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
flags=(
    "--remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rustc/$commit"
    "--remap-path-prefix=$cargo_home=/cargo"
    "--remap-path-prefix=$(dirname "$guests")=/smg"
)
# The name of a registry's directory is a hash of where the registry is.
for registry in "$cargo_home"/registry/src/*; do
    flags+=("--remap-path-prefix=$registry=/crates")
done
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && printf '%s' "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS CARGO_INCREMENTAL=0
while read -r setting; do
    unset "$setting"
done < <(compgen -e CARGO_PROFILE_RELEASE_)

cargo build --release --locked --target "$target"

built=()
for manifest in */Cargo.toml; do
    built+=("$(dirname "$manifest").wasm")
done
release=$CARGO_TARGET_DIR/$target/release

if [[ ${1-} != --check ]]; then
    mkdir -p dist
    for wasm in "${built[@]}"; do
        cp "$release/$wasm" "dist/$wasm"
    done
    wc -c dist/*.wasm
    exit
fi

differing=0
for wasm in "${built[@]}"; do
    if ! cmp -s "$release/$wasm" "dist/$wasm"; then
        echo "dist/$wasm differs from what its sources build to" >&2
        differing=1
    fi
done
for wasm in dist/*.wasm; do
    if [[ ! -f $(basename "$wasm" .wasm)/Cargo.toml ]]; then
        echo "$wasm has no sources" >&2
        differing=1
    fi
done
exit "$differing"
