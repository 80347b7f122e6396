#!/usr/bin/env bash
# Builds target/dist/edge guided by its own counts: a first build counts which ways it goes while bench's workloads run over it,
# a second one is laid out by these counts. Needs npm for the widgets and, cold, up to three quarters of an hour of two cores; it
# adds Rust's component llvm-tools where that is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Absolute, for the counting program writes from wherever it runs.
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
guided=$target/guided
host=$(rustc -vV | sed -n 's/^host: //p')
merge=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
[ -x "$merge" ] || rustup component add llvm-tools

# build FLAG: with the target named, build scripts and macros are built without FLAG.
build() {
    RUSTFLAGS="${RUSTFLAGS:-} $1" cargo build --locked --profile dist --bin edge --target "$host" --target-dir "$guided"
}

rm -rf "$guided/counts"
build "-Cprofile-generate=$guided/counts"
cp "$guided/$host/dist/edge" "$guided/edge-counting"
cargo run --locked --release --bin bench -- all --quick --peers none --edge "$guided/edge-counting"
"$merge" merge --output "$guided/edge.profdata" "$guided"/counts/*.profraw
build "-Cprofile-use=$guided/edge.profdata"
mkdir -p "$target/dist"
cp "$guided/$host/dist/edge" "$target/dist/edge"
echo "built: $target/dist/edge"
