#!/usr/bin/env bash
# Checks and measures infalign on the first CUDA device, beside PyTorch and transformers on the same machine.
# Usage: benches/gpu.sh OUTDIR [MODEL…]   MODEL: Hugging Face directories to measure besides.
# Needs the driver, the CUDA toolkit (CUDA_PATH), and for the comparison a Python with torch and transformers (PYTHON).
# FEATURES: of infalign-cli, `cuda-nvrtc` (default), `cuda`, or either with `,autotune`.
# BINARIES: a folder with `infalign`, `devices`, `generation` and `step` that were built elsewhere from this tree, at the same path, with
#   cargo build --release --workspace --features infalign-cli/FEATURE --bin infalign --test devices --bench generation --bench step
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
# All folders as they are called from here.
folder() {
    cd "$1" && pwd
}
models=()
for model in "$@"; do
    model=$(folder "$model")
    models+=("$model")
done
[ -z "${BINARIES:-}" ] || BINARIES=$(folder "$BINARIES")
[ -z "${INFALIGN_DATA:-}" ] || INFALIGN_DATA=$(folder "$INFALIGN_DATA")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
features=(--workspace --features "infalign-cli/${FEATURES:-cuda-nvrtc}")
export INFALIGN_DEVICE=cuda
python=${PYTHON:-python3}

run() {
    local kind=$1 name=$2
    shift 2
    if [ -n "${BINARIES:-}" ]; then
        "$BINARIES/$name" "$@"
        return
    fi
    case $kind in
    bin) cargo run --release "${features[@]}" --bin "$name" -- "$@" ;;
    test) cargo test --release "${features[@]}" --test "$name" -- "$@" ;;
    bench) cargo bench "${features[@]}" --bench "$name" ;;
    esac
}

# A side that fails, or is not there, leaves the others their numbers.
measure() {
    run bench generation || true
    "$python" crates/decode/benches/generation.py || true
    INFALIGN_DTYPE=bf16 run bench generation || true
    INFALIGN_DTYPE=bfloat16 "$python" crates/decode/benches/generation.py || true
    run bench step || true
    "$python" crates/train/benches/step.py || true
}

{ nvidia-smi; lscpu; run bin infalign doctor; } > "$out/machine.txt" 2>&1
measure > "$out/speed.txt" 2>&1
for model in "${models[@]}"; do
    INFALIGN_MODELS=$model measure > "$out/$(basename "$model").txt" 2>&1
done
run bin infalign train --device cuda --out "$out/quickstart" > "$out/train.txt" 2>&1 || true
run test devices --nocapture > "$out/parity.txt" 2>&1
