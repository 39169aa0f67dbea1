#!/bin/sh
# Prints the largest source files (lines before their tests) and the longest functions. Something to look at; it never
# fails.
cd "$(dirname "$0")/.." || exit 0
count=${1:-15}

sources() { find crates -path '*/src/*' -name '*.rs' ! -name tests.rs; }

echo "largest files, in lines before their tests (aim 250, look again at 400, split at 500):"
sources | xargs awk '
  function done() { if (file != "") print lines, file }
  FNR == 1 { done(); file = FILENAME; lines = 0; skip = 0 }
  /^#\[cfg\(test\)\]/ { skip = 1 }
  !skip { lines++ }
  END { done() }' | sort -rn | head -n "$count" | awk '{ printf "  %5d  %s\n", $1, $2 }'

# rustfmt closes a function with a brace as far in as its first line, which is all this rests on.
echo "longest functions, in lines (aim 25, look again at 60):"
sources | xargs awk '
  FNR == 1 { open = 0; skip = 0 }
  /^#\[cfg\(test\)\]/ { skip = 1 }
  !skip && !open && /^ *(pub(\([a-z ]+\))? )?(const )?(async )?fn [a-z_0-9]+/ && !/;$/ {
    match($0, /^ */); indent = RLENGTH
    name = $0; sub(/^.*fn /, "", name); sub(/[^a-z_0-9].*$/, "", name)
    if (/\}$/) next
    open = 1; first = FNR
  }
  open && match($0, /^ *\}$/) && RLENGTH == indent + 1 {
    print FNR - first + 1, name, FILENAME ":" first
    open = 0
  }' | sort -rn | head -n "$count" | awk '{ printf "  %5d  %s (%s)\n", $1, $2, $3 }'
exit 0
