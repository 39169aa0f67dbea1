#!/usr/bin/env bash
# Every alert has a runbook, and what the runbooks say to type works.
set -euo pipefail
# shellcheck source=deploy/lib/tools.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/tools.sh"
export PYTHONDONTWRITEBYTECODE=1

if ! make_python; then
  skip_all "$why" runbooks runbook-commands runbook-aws runbook-aws-finds-mistakes runbook-kubectl \
    runbook-kubectl-finds-mistakes
  exit 0
fi
check runbooks "$python" "$root/deploy/runbooks/check.py" alerts
for program in aws kubectl; do
  check runbook-$program "$python" "$root/deploy/runbooks/check.py" $program
  check runbook-$program-finds-mistakes "$python" "$root/deploy/runbooks/check.py" $program --broken
done
if ! command -v curl >/dev/null; then
  skipped runbook-commands "curl is not there"
elif find_program; then
  check runbook-commands timeout 400 "$python" "$root/deploy/runbooks/check.py" commands
else
  skipped runbook-commands "$why"
fi
exit "$((failures > 0))"
