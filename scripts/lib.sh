# Shared by the scripts: colours only on a terminal, one way to say a step and to stop.
# shellcheck shell=bash

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' reset=$'\e[0m'
else
  bold='' dim='' red='' green='' reset=''
fi

step() { printf '%s==>%s %s%s%s\n' "$green" "$reset" "$bold" "$*" "$reset" >&2; }
note() { printf '    %s%s%s\n' "$dim" "$*" "$reset" >&2; }
die() {
  printf '%serror:%s %s\n' "$red" "$reset" "$1" >&2
  exit "${2:-1}"
}
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is not installed: $2" 69; }

target_dir() { printf '%s' "${CARGO_TARGET_DIR:-target}"; }
cache_dir() { printf '%s' "${XDG_CACHE_HOME:-$HOME/.cache}/cloister"; }
