#!/usr/bin/env bash
# Builds every guest into dist/NAME.wasm.
#
#   build.sh           build and copy
#   build.sh --check   build somewhere else and compare with dist/; exit 1 if a file differs
#
# A guest is a directory with a Cargo.toml that has a [package.metadata.guest], or with a build.sh of its own that takes
# the file to write. The bytes depend on the sources, the lock files and rust-toolchain.toml, and not on where the
# checkout, cargo's or rustup's directories are, nor on flags and profiles set outside.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
guests=$(pwd -P)

built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
case "${1-}" in
"")
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$guests/target}
    ;;
--check)
    export CARGO_TARGET_DIR=$built/target
    ;;
*)
    echo "usage: build.sh [--check]" >&2
    exit 2
    ;;
esac

# Panic messages carry the paths of the sources they are in. The last flag that fits a path wins; the list of flags is
# separated by 0x1f, so that paths may have spaces.
sysroot=$(rustc --print sysroot)
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

# The names of the packages that are guests for the target $1.
packages_for() {
    local manifest
    for manifest in */Cargo.toml; do
        if grep -A1 -Fx '[package.metadata.guest]' "$manifest" | grep -qFx "target = \"$1\""; then
            dirname "$manifest"
        fi
    done
}

# Each target in a build of its own, so that guests of one never choose the features of the other's dependencies.
for target in wasm32-wasip2 wasm32-unknown-unknown; do
    if [[ ! -d $sysroot/lib/rustlib/$target ]]; then
        rustup target add "$target"
    fi
    mapfile -t packages < <(packages_for "$target")
    cargo build --release --locked --target "$target" "${packages[@]/#/--package=}"
    for package in "${packages[@]}"; do
        cp "$CARGO_TARGET_DIR/$target/release/${package//-/_}.wasm" "$built/$package.wasm"
    done
done

for script in */build.sh; do
    guest=$(dirname "$script")
    "$script" "$built/$guest.wasm"
done

if [[ ${1-} != --check ]]; then
    mkdir -p dist
    install -m 644 "$built"/*.wasm dist/
    wc -c dist/*.wasm
    exit
fi

differing=0
for wasm in "$built"/*.wasm; do
    if ! cmp -s "$wasm" "dist/${wasm##*/}"; then
        echo "dist/${wasm##*/} differs from what its sources build to" >&2
        differing=1
    fi
done
for wasm in dist/*.wasm; do
    if [[ ! -f $built/${wasm##*/} ]]; then
        echo "$wasm has no sources" >&2
        differing=1
    fi
done
exit "$differing"
