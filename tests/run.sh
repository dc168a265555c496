#!/usr/bin/env bash
# Installs what the tests need, builds, and runs every test.
#   tests/run.sh [--without-model] [CTEST-OPTIONS...]     e.g. tests/run.sh -R tokenizer
# --without-model: do not get the real model (95 MB); the tests that need it are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/setup.sh

MODEL=
if [ "${1:-}" = --without-model ]; then
  shift
else
  with_model=yes
fi
install_packages "${SETUP_PACKAGES[@]}" binutils g++ iproute2 libcmocka-dev mandoc python3 python3-jinja2
(install_packages python3-venv chromium) || say "The tests that need them are skipped."
get_python build/python openai==3.54.0 schemathesis==4.32.5
[ -z "${with_model:-}" ] || get_model
say "Configuring and building in $(pwd)/build"
configure_build build -DTSR_TESTS=ON -DTSR_TEST_MODEL="$MODEL" -DTSR_TEST_PYTHON="$PYTHON"
build_targets build all
if ! command -v nvcc >/dev/null && [ ! -x /usr/local/cuda/bin/nvcc ]; then
  say "There is no nvcc here: the CUDA sources are neither compiled nor tested on the emulated device."
fi
exec ctest --test-dir build --output-on-failure -j "$(nproc)" "$@"
