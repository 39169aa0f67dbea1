#!/usr/bin/env bash
# Runs every check of what is deployed with: deploy/verify.d/*.sh in order, or those whose names contain an argument.
#
# Each prints lines `PASSED name`, `FAILED name` or `SKIPPED name: why`. A check that cannot be tried on this machine is
# skipped by name. The last line counts them. Fails if anything failed, if a script broke, or if nothing was checked.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for script in deploy/verify.d/[0-9]*.sh; do
  name=$(basename "$script" .sh)
  if [ $# -gt 0 ]; then
    wanted=no
    for part in "$@"; do case $name in *"$part"*) wanted=yes ;; esac; done
    [ $wanted = yes ] || continue
  fi
  echo "== $name"
  before=$(grep -c . "$log")
  bash "$script" </dev/null | tee -a "$log"
  status=${PIPESTATUS[0]}
  # A script that fails has said of what; one that broke before that must not pass for it.
  if [ "$status" != 0 ] && ! tail -n +$((before + 1)) "$log" | grep -q '^FAILED '; then
    echo "FAILED $name: the script ended with status $status" | tee -a "$log"
  fi
done

skipped=$(grep -c '^SKIPPED ' "$log")
if [ "$skipped" -gt 0 ]; then
  echo "== skipped"
  grep '^SKIPPED ' "$log"
fi
passed=$(grep -c '^PASSED ' "$log")
failed=$(grep -c '^FAILED ' "$log")
if [ "$failed" -gt 0 ]; then
  echo "== failed"
  grep '^FAILED ' "$log"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
