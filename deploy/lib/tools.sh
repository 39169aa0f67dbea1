# For the checks in deploy/verify.d: how they speak, and the tools that they bring along. To be sourced.
#
# Each check prints lines `PASSED name`, `FAILED name`, `SKIPPED name: why`, and what went wrong to standard error.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=$root/target/deploy-tools
failures=0

passed() { echo "PASSED $1"; }
failed() { echo "FAILED $1"; failures=$((failures + 1)); }
skipped() { echo "SKIPPED $1: $2"; }

# Runs a command as the check of this name; its output is shown only if it fails. Status 3 means that it could not
# be tried, and its last line says why.
check() { # name, command...
  local name=$1 status=0 output
  shift
  output=$("$@" 2>&1) || status=$?
  case $status in
    0) passed "$name" ;;
    3) skipped "$name" "$(tail -n 1 <<<"$output")" ;;
    *)
      printf '%s\n' "$output" >&2
      failed "$name"
      ;;
  esac
}

# Makes the Python environment of these checks, once for each list of requirements; sets $python. Where there is no
# Python or no package index, the checks that need it are skipped.
make_python() {
  local list=$root/deploy/lib/requirements.txt environment
  command -v python3 >/dev/null || { why="python3 is not there"; return 1; }
  environment=$tools/python-$(cksum <"$list" | cut -d ' ' -f 1)
  python=$environment/bin/python
  [ -e "$environment/ready" ] && return 0
  rm -rf "$environment"
  mkdir -p "$tools"
  if python3 -m venv "$environment" >&2 &&
    "$python" -m pip install --quiet --disable-pip-version-check -r "$list" >&2; then
    touch "$environment/ready"
  else
    why="the Python packages of deploy/lib/requirements.txt cannot be installed"
    return 1
  fi
}

# Sets $SLUICEGATE_BIN to the program that is tried.
find_program() {
  local candidate
  for candidate in "${SLUICEGATE_BIN:-}" "$root/target/release/sluicegate" "$root/target/debug/sluicegate"; do
    [ -x "$candidate" ] && { export SLUICEGATE_BIN=$candidate; return 0; }
  done
  why="there is no sluicegate (cargo build --release, or SLUICEGATE_BIN)"
  return 1
}

skip_all() { # why, names...
  local because=$1 name
  shift
  for name in "$@"; do skipped "$name" "$because"; done
}
