#!/bin/sh
# What one worker process costs: drains a preloaded stream and prints one JSON object.
#   scripts/measure.sh FILE [KEY]     FILE: newline-delimited JSON, plain or compressed
# Needs curl and a release build. The stream is loaded before the worker starts, so the producer is not in the figures;
# the embedded backend shares the processors with the worker, so the wall time is a lower bound of what it can do.
set -eu
file=$1
key=${2:-'{/carrier}-{/month}'}
bin=${SLUICEGATE_BIN:-target/release/sluicegate}
work=$(mktemp -d)
finish() {
	for pid in ${worker:-} ${backend:-}; do kill "$pid" 2>/dev/null || true; done
	rm -rf "$work"
}
trap finish EXIT INT TERM

"$bin" local --kinesis-port 0 --dynamodb-port 0 >"$work/env" 2>"$work/local.log" &
backend=$!
while ! grep -q DYNAMODB "$work/env" 2>/dev/null; do sleep 0.05; done
. "$work/env"
"$bin" produce --embedded --stream measure --create-stream 4 /dev/null >/dev/null

begun=$(date +%s)
patience() { # what is waited for: a minute for the whole run, then the logs
	if [ $(($(date +%s) - begun)) -lt 60 ]; then return; fi
	{ echo "measure: $1; worker ${worker:-?} $(kill -0 "$worker" 2>/dev/null && echo runs || echo has ended); its log:"; tail -20 "$work/worker.log"; } >&2
	exit 1
}

start_worker() {
	now=$(date +%s%3N)
	# The preloaded records arrived long ago, and the embedded backend has no read quota.
	SLUICEGATE_CFG_MIN_READ_INTERVAL=0s SLUICEGATE_CFG_IDLE_READ_INTERVAL=50ms SLUICEGATE_CFG_MAX_BATCH_SPAN=60s \
		"$bin" run --embedded --stream measure --application "$1" --admin 127.0.0.1:0 >/dev/null 2>"$work/worker.log" &
	worker=$!
	until address=$(sed -n 's/.*admin server listens.*address=\([0-9.:]*\).*/\1/p' "$work/worker.log") && [ -n "$address" ]; do
		patience "the worker did not start"
		sleep 0.01
	done
}
metric() { curl -s --max-time 2 "http://$address/metrics" | awk -v name="$1" '$1 == name { print int($2) }'; }

# Once on the empty stream, to make the tables, so that the start that is measured finds them.
start_worker measure
kill "$worker"; wait "$worker" 2>/dev/null || true
"$bin" produce --embedded --stream measure --key "$key" --json "$file" >"$work/produced"
events=$(sed 's/.*"records":\([0-9]*\).*/\1/' "$work/produced")

start_worker measure
first=
until [ "$(metric sluicegate_events_stored_total)" -ge "$events" ] 2>/dev/null; do
	if [ -z "$first" ] && [ "$(metric sluicegate_events_stored_total)" -gt 0 ] 2>/dev/null; then first=$(($(date +%s%3N) - now)); fi
	patience "not everything was stored"
	sleep 0.02
done
elapsed=$(($(date +%s%3N) - now))
[ -n "$first" ] || first=$elapsed
ticks=$(getconf CLK_TCK)
cpu_ms() { awk -v t="$ticks" '{ sub(/^.*\) /, ""); print int(($12 + $13) * 1000 / t) }' "/proc/$1/stat"; }
hwm=$(awk '/^VmHWM/ { print $2 }' "/proc/$worker/status")
cpu=$(cpu_ms "$worker")
backend_cpu=$(cpu_ms "$backend")
awk -v e="$events" -v c="$cpu" -v b="$backend_cpu" -v w="$elapsed" -v f="$first" -v h="$hwm" 'BEGIN {
	printf "{\"events\":%d,\"elapsed_ms\":%d,\"events_per_second\":%d,\"worker_cpu_ms\":%d,\"worker_cpu_seconds_per_million_events\":%.2f,\"backend_cpu_ms\":%d,\"first_batch_ms\":%d,\"peak_rss_mib\":%.1f}\n",
		e, w, e * 1000 / w, c, c * 1000 / e, b, f, h / 1024 }'
