#!/usr/bin/env bash
# Checks and measures infalign on the first CUDA device, beside PyTorch and transformers on the same machine.
# Usage: benches/gpu.sh OUTDIR [MODEL…]   MODEL: Hugging Face directories to measure besides. FEATURE: cuda (default) or cuda-nvrtc.
# Needs the driver, the CUDA toolkit (CUDA_PATH), and for the comparison a Python with torch and transformers (PYTHON).
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
features=(--workspace --features "infalign-cli/${FEATURE:-cuda}")
export INFALIGN_DEVICE=cuda
python=${PYTHON:-python3}

{ nvidia-smi; lscpu; cargo run --release "${features[@]}" --bin infalign -- doctor; } > "$out/machine.txt" 2>&1
cargo test --release "${features[@]}" --test devices -- --nocapture > "$out/parity.txt" 2>&1
cargo run --release "${features[@]}" --bin infalign -- train --device cuda --out "$out/quickstart" > "$out/train.txt" 2>&1
measure() {
    cargo bench "${features[@]}" --bench generation
    "$python" crates/decode/benches/generation.py
    cargo bench "${features[@]}" --bench step
    "$python" crates/train/benches/step.py
    INFALIGN_DTYPE=bf16 cargo bench "${features[@]}" --bench generation
    INFALIGN_DTYPE=bfloat16 "$python" crates/decode/benches/generation.py
}
measure > "$out/speed.txt" 2>&1
for model in "$@"; do
    INFALIGN_MODELS=$model measure > "$out/$(basename "$model").txt" 2>&1
done
