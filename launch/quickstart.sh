#!/usr/bin/env bash
# From a fresh clone to an answer: installs what is missing, builds, gets a small model, and asks it on two ranks.
#   launch/quickstart.sh [PROMPT]
# The answer goes to stdout, everything else to stderr. The second run has nothing left to do but answer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/setup.sh

case ${1:-} in
  -h | --help)
    sed -n '2,4s/^# \{0,1\}//p' launch/quickstart.sh
    exit 0
    ;;
esac
[ $# -le 1 ] || fail "one prompt at most, in quotes: launch/quickstart.sh 'Why is the sky blue?'"
prompt=${1:-Why is the sky blue? Answer in two sentences.}

if [ ! -x build/tessera ]; then
  say "This will, as far as it has not been done:"
  say "  1. install the Debian packages ${SETUP_PACKAGES[*]}"
  say "  2. build Tessera in $(pwd)/build"
  say "  3. download a model of 95 MB into ${XDG_CACHE_HOME:-~/.cache}/tessera"
  say "  4. run: mpirun -n 2 build/tessera generate --chat --prompt '$prompt'"
fi
install_packages "${SETUP_PACKAGES[@]}"
if [ ! -f build/build.ninja ] && [ ! -f build/Makefile ]; then
  say "Configuring"
  configure_build build -DTSR_TESTS=OFF
fi
[ -x build/tessera ] || say "Building (a minute or two)"
build_targets build tessera
get_model

# Root is refused by mpirun unless told that it is meant; a machine with one core has two ranks all the same.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
say "mpirun -n 2 build/tessera generate --model $MODEL --chat --prompt '$prompt'"
status=0
mpirun -n 2 --oversubscribe --bind-to none build/tessera generate --model "$MODEL" --chat --prompt "$prompt" \
  --max-tokens 200 </dev/null || status=$?
case $status in
  0 | 130 | 143) exit $status ;; # done, or stopped by Ctrl-C or kill
esac
fail "the run ended with status $status; what it said is above." \
  "Without mpirun: build/tessera generate --model $MODEL --chat --prompt Hello"
