#!/usr/bin/env bash
# The experiments of Chaos Mesh: schemas, what they hit, and what each says of itself.
set -uo pipefail
# shellcheck source=deploy/lib/charts.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/charts.sh"

if ! make_charts; then
  skipped "chaos: experiments" "$why"
  exit 0
fi
find_helm
unit_tests chaos "$root/deploy/helm/tests:$root/deploy/chaos" test_experiments
[ "$failures" = 0 ]
