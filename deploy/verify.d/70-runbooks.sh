#!/usr/bin/env bash
# Every alert has a runbook, and what the runbooks say to type works.
set -euo pipefail
# shellcheck source=deploy/lib/charts.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/charts.sh"
export PYTHONDONTWRITEBYTECODE=1
cluster=(runbook-kubectl-runs runbook-kubectl-runs-finds-mistakes)

if ! make_python; then
  skip_all "$why" runbooks runbook-commands runbook-aws runbook-aws-finds-mistakes runbook-aws-runs \
    runbook-aws-runs-finds-mistakes runbook-kubectl runbook-kubectl-finds-mistakes "${cluster[@]}"
  exit 0
fi
about() { # name, arguments: the check, and that it finds mistakes
  local name=$1
  shift
  check "$name" timeout 300 "$python" "$root/deploy/runbooks/check.py" "$@"
  check "$name-finds-mistakes" timeout 300 "$python" "$root/deploy/runbooks/check.py" "$@" --broken
}
check runbooks "$python" "$root/deploy/runbooks/check.py" alerts
about runbook-aws aws
about runbook-aws-runs emulated
about runbook-kubectl kubectl
if make_charts; then
  deployment=$(mktemp)
  trap 'rm -f "$deployment"' EXIT
  PYTHONPATH=$root/deploy/helm/tests "$charts/python" -m charts >"$deployment"
  about runbook-kubectl-runs cluster "$deployment"
else
  skip_all "$why" "${cluster[@]}"
fi
if ! command -v curl >/dev/null; then
  skipped runbook-commands "curl is not there"
elif find_program; then
  check runbook-commands timeout 400 "$python" "$root/deploy/runbooks/check.py" commands
else
  skipped runbook-commands "$why"
fi
exit "$((failures > 0))"
