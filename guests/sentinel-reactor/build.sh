#!/usr/bin/env bash
# Assembles reactor.wat into the file $1, as Cargo.lock pins the assembler.
set -euo pipefail

wasm=$(realpath -m "$1")
cd "$(dirname "${BASH_SOURCE[0]}")"
# The flags and the directory of the guests' build are for guests.
unset CARGO_ENCODED_RUSTFLAGS
cargo run --quiet --locked --package wat2wasm --target-dir ../target/tools/cargo -- reactor.wat "$wasm"
