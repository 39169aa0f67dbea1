#!/usr/bin/env bash
# The Helm chart: values, manifests, and whether what they say is there in the program.
set -uo pipefail
# shellcheck source=deploy/lib/charts.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/charts.sh"

if ! make_charts; then
  skip_all "$why" "helm: values" "helm: manifests" "helm: autoscaling" "helm: parity with the program"
  exit 0
fi
find_helm
[ -n "${HELM3:-}" ] || skipped "helm: rendering by Helm 3" "it is not there and cannot be installed"
find_program || true
find_production || true
unit_tests helm "$root/deploy/helm/tests" test_values test_manifests test_autoscaling test_parity
[ "$failures" = 0 ]
