#!/usr/bin/env bash
# Least privilege, both ways: what the real program calls is what the policies of the template allow.
set -euo pipefail
# shellcheck source=deploy/lib/tools.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/tools.sh"
export PYTHONDONTWRITEBYTECODE=1

if make_python && find_program; then
  check policy-equals-calls timeout 600 "$python" "$root/deploy/policy/compare.py"
else
  skipped policy-equals-calls "$why"
fi
exit "$((failures > 0))"
