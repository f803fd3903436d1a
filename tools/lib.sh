# Shared by the scripts beside it; sourced, never run. Changes to the root of the source tree.
# shellcheck shell=bash

set -euo pipefail
self=$(realpath "$0")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Another clone of the same sources hits the same compiler cache.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1

readonly kModel=.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf  # where the tests look for it

say() { printf '== %s\n' "$*" >&2; }

die() {
  printf '%s: %s\n' "${self##*/}" "$*" >&2
  exit 1
}

usage() {  # the comment block at the head of the calling script
  sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$self"
}

# configure PRESET [CMAKE_ARGUMENT...]: only when never done, or the presets or arguments changed;
# for all other changes ninja calls cmake by itself.
configure() {
  local preset=$1 build=build/$1
  local stamp=$build/configured-with arguments="$*"
  if [[ ! -f $build/build.ninja || CMakePresets.json -nt $stamp ||
        $(cat "$stamp" 2>/dev/null) != "$arguments" ]]; then
    say "configuring $preset"
    cmake --preset "$preset" --log-level=WARNING "${@:2}" || return
    printf '%s\n' "$arguments" >"$stamp"
  fi
}

# build PRESET TARGET...: ninja shows the progress.
build() {
  say "building ${*:2} ($1)"
  cmake --build "build/$1" --target "${@:2}"
}

# run_tests PRESET [CTEST_ARGUMENT...]: ends with ctest's own summary.
run_tests() {
  say "running the tests ($1)"
  ctest --preset "$1" --parallel "$(nproc)" --timeout 300 --progress "${@:2}"
}

# Puts the default model where the tests look for it; downloads it once per user.
provide_model() {
  [[ ! -s $kModel ]] || return 0
  local file
  file=$(tools/fetch-model) || return
  mkdir -p "$(dirname "$kModel")"
  ln -sfn "$file" "$kModel"
}
