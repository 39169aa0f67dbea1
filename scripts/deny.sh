#!/bin/sh
# Runs cargo-deny: bans, licences and sources, and advisories where their database can be reached.
set -eu
cd "$(dirname "$0")/.."
if ! cargo deny --version >/dev/null 2>&1; then
  echo "deny: SKIPPED (cargo-deny is not installed: cargo install --locked cargo-deny)"
  exit 0
fi
cargo deny --locked check bans licenses sources
if cargo deny --locked fetch db >/dev/null 2>&1; then
  cargo deny --locked check --disable-fetch advisories
else
  echo "advisories: SKIPPED (no database)"
fi
