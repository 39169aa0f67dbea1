#!/usr/bin/env bash
# The infrastructure template: its form, its policies, and that a worker runs on what it makes.
set -euo pipefail
# shellcheck source=deploy/lib/tools.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/tools.sh"
export PYTHONDONTWRITEBYTECODE=1
template=$root/deploy/cloudformation/sluicegate.yaml

lint() { "$(dirname "$python")/cfn-lint" "$@"; }

lint_finds_mistakes() {
  local folder status=0 said
  folder=$(mktemp -d)
  sed 's/BillingMode: PAY_PER_REQUEST/BillingMode: PAY_PER_QUEST/' "$template" >"$folder/broken.yaml"
  said=$(lint "$folder/broken.yaml") || status=$?
  rm -r "$folder"
  # E3030: not one of the allowed values.
  [ "$status" != 0 ] && grep -q '^E3030' <<<"$said"
}

if ! make_python; then
  skip_all "$why" cloudformation-lint cloudformation-lint-finds-mistakes policy-lint policy-lint-finds-mistakes \
    cloudformation-page cloudformation-emulated
  exit 0
fi
check cloudformation-lint lint "$template"
check cloudformation-lint-finds-mistakes lint_finds_mistakes
check policy-lint "$python" "$root/deploy/cloudformation/lint.py"
check policy-lint-finds-mistakes "$python" "$root/deploy/cloudformation/lint.py" --broken
check cloudformation-page timeout 300 "$python" "$root/deploy/cloudformation/page.py"
if find_program; then
  check cloudformation-emulated timeout 300 "$python" "$root/deploy/cloudformation/emulate.py"
else
  skipped cloudformation-emulated "$why"
fi
exit "$((failures > 0))"
