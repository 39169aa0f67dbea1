#!/bin/sh
# Fails unless the table of docs/dependencies.md names exactly the direct dependencies of the workspace's crates, each
# with the crates that have it. Offline, and needs cargo and awk alone.
set -eu
cd "$(dirname "$0")/.."
page=docs/dependencies.md
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# "dependency crate" or "dependency crate(dev)", one a line; our own crates are the crate graph's matter.
cargo metadata --no-deps --offline --format-version 1 >"$dir/metadata"
tr '{' '\n' <"$dir/metadata" | awk '
  function text(name,   at) {
    at = index($0, "\"" name "\":\"")
    if (!at) return ""
    $0 = substr($0, at + length(name) + 4)
    return substr($0, 1, index($0, "\"") - 1)
  }
  /^"name":"[^"]*","version":/ { crate = text("name"); sub(/^sluicegate-/, "", crate) }
  /^"name":"[^"]*","source":.*"req":/ {
    dev = /"kind":"dev"/
    name = text("name")
    if (name ~ /^sluicegate-/) next
    if (!dev) normal[name " " crate] = 1
    all[name " " crate] = 1
  }
  END { for (pair in all) print pair (pair in normal ? "" : "(dev)") }
' | sort >"$dir/have"

# Rows look like: | `name` | crate, crate (dev) | why |
awk -F '|' '
  /^\| *`[a-z0-9_-]+` *\|/ {
    name = $2; gsub(/[` ]/, "", name)
    why = $4; gsub(/ /, "", why)
    if (why == "") { print "no reason is given for `" name "`" >"/dev/stderr"; exit 1 }
    users = $3; gsub(/ /, "", users)
    count = split(users, user, ",")
    for (i = 1; i <= count; i++) print name " " user[i]
  }
' "$page" >"$dir/unsorted"
sort "$dir/unsorted" >"$dir/named"

if [ ! -s "$dir/have" ]; then
  echo "check-dependencies: cargo metadata named no dependency; the script needs a look" >&2
  exit 1
fi
if ! cmp -s "$dir/have" "$dir/named"; then
  echo "check-dependencies: $page and the crates' Cargo.toml differ" >&2
  comm -23 "$dir/have" "$dir/named" | sed 's/^\([^ ]*\) \(.*\)$/  not on the page: `\1`, used by \2/' >&2
  comm -13 "$dir/have" "$dir/named" | sed 's/^\([^ ]*\) \(.*\)$/  gone, but on the page: `\1`, used by \2/' >&2
  exit 1
fi
echo "check-dependencies: $(cut -d ' ' -f 1 "$dir/have" | sort -u | wc -l | tr -d ' ') direct dependencies, all named"
