#!/usr/bin/env bash
# Alerts and dashboard: their form, unit tests of the alerts, and every query asked of a real Prometheus.
set -euo pipefail
# shellcheck source=deploy/lib/tools.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/tools.sh"
export PYTHONDONTWRITEBYTECODE=1
monitoring=$root/deploy/monitoring

if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
  check alert-rules promtool check rules "$monitoring/rules.yaml"
  check alert-tests promtool test rules "$monitoring/rules_test.yaml"
else
  skip_all "promtool and prometheus are not there (Debian: prometheus)" alert-rules alert-tests dashboard-lint \
    monitoring-live
  exit 0
fi
if ! make_python; then
  skip_all "$why" dashboard-lint monitoring-live
  exit "$((failures > 0))"
fi
check dashboard-lint "$python" "$monitoring/lint_dashboard.py"
if find_program; then
  check monitoring-live timeout 300 "$python" "$monitoring/live.py"
else
  skipped monitoring-live "$why"
fi
exit "$((failures > 0))"
