#!/usr/bin/env bash
# Everything on a real GPU, and what it measures, written to docs/gpu-results.md.
#   tests/gpu/run.sh [BUILD-FOLDER]      default: build-cuda. Without a GPU nothing is run and nothing is written.
# Single instructions first, then the ops, then the program, alone and as two ranks on one GPU; then tessera bench. What fails is
# in the results as well: the next step is taken all the same, so that one visit to a GPU tells as much as it can.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit
. launch/setup.sh

BUILD=${1:-build-cuda}
RESULTS=docs/gpu-results.md
N_FAILED=0

if ! command -v nvidia-smi >/dev/null || ! CARD=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null) ||
  [ -z "$CARD" ]; then
  say "There is no GPU here (nvidia-smi finds none): nothing was run."
  exit 77
fi
CARD=$(printf '%s\n' "$CARD" | head -1)
ARCH=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)

if [ -z "${TSR_READY:-}" ]; then # set: packages and build are there already
  install_packages "${SETUP_PACKAGES[@]}" libcmocka-dev python3
  configure_build "$BUILD" -DTSR_CUDA=ON -DTSR_CUDA_ARCHS="$ARCH" -DTSR_TESTS=ON
  build_targets "$BUILD" all
  get_model
fi
MODEL=${MODEL:-}

OUT=$(mktemp -d)
trap 'rm -rf "$OUT"' EXIT
MPI=(mpirun --oversubscribe --bind-to none)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# part TITLE COMMAND...: one line in the results, and the last of what was said when it failed.
part() {
  local title=$1 rc began=$SECONDS
  shift
  "$@" >"$OUT/said" 2>&1 && rc=0 || rc=$?
  if [ "$rc" = 0 ]; then
    printf '| %s | passed | %d s |\n' "$title" $((SECONDS - began)) >>"$OUT/table"
  else
    N_FAILED=$((N_FAILED + 1))
    printf '| %s | **failed** (%d) | %d s |\n' "$title" "$rc" $((SECONDS - began)) >>"$OUT/table"
    printf '\n### %s\n\n```\n%s\n```\n' "$title" "$(tail -n 40 "$OUT/said")" >>"$OUT/failures"
  fi
  say "$title: $([ "$rc" = 0 ] && echo passed || echo "failed ($rc)")"
}

: >"$OUT/table"
: >"$OUT/failures"
part "single instructions" timeout 600 "$BUILD/tests/gpu/test_primitives_gpu"
part "the queue, copies, recordings" timeout 600 "$BUILD/tests/gpu/test_gpu_device_gpu"
for name in rows family_rows experts top_k matmul attention; do
  part "ops: $name, the CPU's bits" timeout 600 "$BUILD/tests/gpu/test_${name}_gpu"
done
for name in matmul experts attention; do
  part "ops: $name, in an order of its own" env EMULATOR_FAST=1 timeout 600 "$BUILD/tests/gpu/test_${name}_gpu"
done
part "rows rounded ahead" timeout 600 "$BUILD/tests/gpu/test_codes_gpu"
part "products of many rows" timeout 600 "$BUILD/tests/gpu/test_matmul_large_gpu"

# same COMMAND...: the CPU's text and log-probabilities, token by token.
same() {
  local words=("generate" "--model" "$MODEL" "--prompt" "The capital of France is" "--max-tokens" "32" "--json" "--logprobs" "2" "--quiet")
  "$BUILD/tessera" "${words[@]}" --device cpu >"$OUT/cpu.json" || return
  "$@" "${words[@]}" --device cuda --deterministic >"$OUT/gpu.json" || return
  python3 - "$OUT/cpu.json" "$OUT/gpu.json" <<'PYTHON'
import json, sys
cpu, gpu = (json.load(open(path)) for path in sys.argv[1:])
for said in (cpu, gpu):
    del said["timings"]
if cpu != gpu:
    sys.exit(f"the CPU said\n{json.dumps(cpu)}\nand the GPU\n{json.dumps(gpu)}")
PYTHON
}
without_graphs() {
  timeout 300 "$BUILD/tessera" "$@" --no-graphs
}
if [ -n "$MODEL" ]; then
  part "the program, one rank" same timeout 300 "$BUILD/tessera"
  part "the program, without graphs" same without_graphs
  part "the program, two ranks on one GPU" same env CUDA_VISIBLE_DEVICES=0 timeout 300 "${MPI[@]}" -n 2 "$BUILD/tessera"
  if [ "$(nvidia-smi --list-gpus | wc -l)" -gt 1 ]; then
    part "the program, a GPU each for two ranks" same timeout 300 "${MPI[@]}" -n 2 "$BUILD/tessera"
  fi
  timeout 600 "$BUILD/tessera" bench --model "$MODEL" --device cuda >"$OUT/bench" 2>&1 || N_FAILED=$((N_FAILED + 1))
else
  say "Without a model the program is not run."
fi

{
  printf '# What a GPU did\n\nWritten by `tests/gpu/run.sh`.\n\n'
  printf '| | |\n|---|---|\n| card, driver, memory | %s |\n| date | %s |\n| commit | %s |\n\n' "$CARD" "$(date -u +%F)" \
    "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
  printf '## Tests\n\n| what | result | time |\n|---|---|---|\n'
  cat "$OUT/table"
  cat "$OUT/failures"
  if [ -s "$OUT/bench" ]; then
    printf '\n## Speed\n\n```\n'
    cat "$OUT/bench"
    printf '```\n'
  fi
} >"$RESULTS"
say "Written: $RESULTS"
[ "$N_FAILED" = 0 ]
