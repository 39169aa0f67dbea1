#!/bin/sh
# Has promtool look at what a worker exports: check-metrics.sh HOST:PORT, or a file. Says SKIPPED where promtool is not there.
set -eu
if ! command -v promtool >/dev/null; then
  echo "check-metrics: SKIPPED: promtool is not installed (Debian: apt-get install prometheus)"
  exit 0
fi
file=$(mktemp)
trap 'rm -f "$file"' EXIT
case $1 in
  *:[0-9]*) curl -fsS -m 10 "http://$1/metrics" >"$file" ;;
  *) cat "$1" >"$file" ;;
esac
# A worker that exports nothing would pass.
series=$(grep -c '^sluicegate_' "$file" || true)
[ "$series" -gt 50 ] || { echo "check-metrics: only $series series" >&2; exit 1; }
promtool check metrics <"$file"
echo "check-metrics: promtool has nothing to say of $series series"
