#!/bin/sh
# Fails when SDK types leave the adapters, when a crate depends on one that it must not know, or when a file names a
# place on somebody's machine.
set -eu
cd "$(dirname "$0")/.."
bad=0

fail() {
  echo "check-boundaries: $1" >&2
  echo "$2" | sed 's/^/  /' >&2
  bad=1
}

# aws_sdk_* belongs to the adapters, the composition root and tests.
found=$(grep -rn --include='*.rs' 'aws_sdk_' crates |
  grep -vE '^crates/(lease/src/dynamodb|sink/src/dynamodb|worker/src/kinesis|producer/src/kinesis)[/.]' |
  grep -vE '^crates/cli/|^crates/local/tests/' || true)
[ -z "$found" ] || fail "SDK types outside the adapters" "$found"

# The arrows of the crate graph; dev-dependencies may point anywhere.
graph() {
  crate=$1
  allowed=$2
  found=$(awk '/^\[/ { on = /^\[dependencies\]/ } on && /^sluicegate-/ { print $1 }' "crates/$crate/Cargo.toml" |
    sed -e 's/^sluicegate-//' -e 's/\.workspace.*//' | grep -vxE "$allowed" || true)
  [ -z "$found" ] || fail "crates/$crate must not depend on" "$found"
}
graph event none
graph checkpoint event
graph lease checkpoint
graph sink 'checkpoint|event'
graph producer 'checkpoint|event'
graph worker 'checkpoint|lease|sink'
graph local none

# Paths of one machine. The brackets keep the pattern from finding itself.
files() {
  if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git ls-files -co --exclude-standard
  else
    find . -type f ! -path './target/*' ! -path './.git/*'
  fi
}
found=$(files | while IFS= read -r file; do
  [ -f "$file" ] && grep -InHE '(^|[^A-Za-z0-9_.-])/(wor[k]|roo[t]|User[s]|home/[a-z]+)/|\.\./share[d]' "$file" || true
done)
[ -z "$found" ] || fail "paths of one machine" "$found"

[ "$bad" = 0 ] || exit 1
echo "check-boundaries: SDK types, crate graph and paths are in order"
