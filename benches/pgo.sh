#!/usr/bin/env bash
# Builds the executable to ship, target/dist/smg: the whole program optimised as one, by a profile of its own work.
#
# The profile is taken while the work of benches/compare.py runs through an instrumented build: plain proxying, and
# modules in each instance mode. Needs what benches/compare.py needs (python3, nginx, wrk, util-linux), and
# `rustup component add llvm-tools`, which it asks for itself. About fifteen minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

rustup component add llvm-tools
host=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
profile=$PWD/target/pgo
rm -rf "$profile"
mkdir -p "$profile"

echo "== an instrumented build"
RUSTFLAGS="-Cprofile-generate=$profile/raw" cargo build --release --locked --bin smg --target-dir "$profile/build"

echo "== its work"

python3 benches/compare.py --rounds 1 --seconds 5 --smg "train=$profile/build/release/smg" --only train
"$profdata" merge --output "$profile/merged.profdata" "$profile/raw"

echo "== the build"
RUSTFLAGS="-Cprofile-use=$profile/merged.profdata" cargo build --profile dist --locked --bin smg
ls -l target/dist/smg
