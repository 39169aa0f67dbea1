# `verify` only reads; `fix` alone writes. The gate needs cargo, make and what a POSIX shell brings.
.PHONY: verify fix shape deny demo simulate failover handoff budget capacity lift memory outage stalled hotkey poison burst chaos reads

# The tests come last, so that the run ends with their summary.
verify:
	cargo fmt --all -- --check
	scripts/check-boundaries.sh
	scripts/check-dependencies.sh
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
	cargo test --workspace --doc --locked
	cargo test --workspace --lib --bins --tests --locked

fix:
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

# The largest files and the longest functions: to look at, never a failure.
shape:
	@scripts/shape.sh

# Bans, licences, sources; advisories where their database can be reached.
deny:
	@scripts/deny.sh

# The whole thing on this machine. Arguments: make demo ARGS="--input events.ndjson --key '{/customer}'"
demo:
	cargo run --release --locked -p sluicegate-cli -- demo $(ARGS)

# The deterministic simulation: make simulate SEEDS=100000 [WIRE_SEEDS=2000], or for the history of one seed of the first
# tier SIM_SEED=7 make simulate, of the second WIRE_SEED=7 make simulate.
SEEDS ?= 1000
many = $(SEEDS) $(if $(WIRE_SEEDS),--wire-seeds $(WIRE_SEEDS))
simulate:
	cargo run --release --locked -p sluicegate-tests --bin simulate -- \
		$(if $(SIM_SEED),--seed $(SIM_SEED),$(if $(WIRE_SEED),--wire-seed $(WIRE_SEED),$(many)))

# How long shards stand still, with real processes: make failover KILLS=50, make handoff MOVES=200.
KILLS ?= 50
MOVES ?= 200
failover handoff: measuring
	target/release/sluicegate-measure $@ $(if $(filter failover,$@),--kills $(KILLS),--moves $(MOVES))

# What a throttling table takes of a fleet that is churned: make budget WORKERS=4 MINUTES=10 [BUDGET_WCU=4000].
WORKERS ?= 4
MINUTES ?= 10
BUDGET_WCU ?= 4000
budget: measuring
	target/release/sluicegate-measure budget --workers $(WORKERS) --minutes $(MINUTES) --budget-wcu $(BUDGET_WCU) \
		--failover-time 3s

# The table's capacity cut to a quarter and doubled again, the fleet restarted in between: make capacity WORKERS=4
capacity: measuring
	target/release/sluicegate-measure $@ --workers $(WORKERS) --budget-wcu $(BUDGET_WCU) --failover-time 3s

# How soon fleets of 1, 2, 4 and 16 workers use what a table gives again, with a budget, with one that follows the table, and with
# none, after refused and staggered starts, outages and changes of capacity: about 36 minutes. A part of it, in a minute:
# make lift WORKERS=2 BUDGETS=none SCENARIOS=refused-start [CAPACITY=1500] [EVIDENCE=docs/evidence]. Several of each are written
# with commas. What is left out is all; the last line is one JSON object.
CAPACITY ?= 1500
lift: measuring
	target/release/sluicegate-measure $@ $(if $(filter file,$(origin WORKERS)),,--workers $(WORKERS)) \
		$(if $(BUDGETS),--budgets $(BUDGETS)) $(if $(SCENARIOS),--scenarios $(SCENARIOS)) --capacity $(CAPACITY) \
		$(if $(EVIDENCE),--evidence $(EVIDENCE))

# A table that refuses every write, one that answers none, and a backlog under one key: make outage MINUTES=10,
# make stalled SHARDS=500 MINUTES=10, make hotkey MINUTES=2.
SHARDS ?= 16
outage stalled hotkey: measuring
	target/release/sluicegate-measure $@ --minutes $(MINUTES) --shards $(SHARDS) --workers $(WORKERS) \
		--budget-wcu $(BUDGET_WCU)

# Events that the table never takes: make poison MINUTES=2 SHARDS=4 [EVERY=5000] [KEYS=50].
EVERY ?= 5000
KEYS ?= 50
poison: measuring
	target/release/sluicegate-measure poison --minutes $(MINUTES) --shards $(SHARDS) --workers $(WORKERS) --every $(EVERY) --keys $(KEYS) \
		--budget-wcu $(BUDGET_WCU)

# Workers killed, frozen, cut off and dismissed, shards split and merged, a backend that misbehaves: make chaos MINUTES=30 SEED=7
# [EVIDENCE=docs/evidence]. Where there is a Prometheus it watches, and alerts that should fire must. The last line is one JSON
# object; a run that fails names its seed and what it left.
PROMETHEUS ?= $(shell command -v prometheus)
SEED ?= 1
chaos: measuring
	target/release/sluicegate-measure chaos --minutes $(MINUTES) --seed $(SEED) $(if $(EVIDENCE),--evidence $(EVIDENCE)) \
		$(if $(PROMETHEUS),--prometheus $(PROMETHEUS))

# How much a worker reads of what a shard leaves beside another consumer, and what it is refused; KCL in its place where there is
# Java: make reads [LASTS=20s].
LASTS ?= 20s
reads: measuring
	target/release/sluicegate-measure $@ --lasts $(LASTS)

# Whether a worker's memory stays within its formula, whatever the stream holds: make memory [LOADS=large,mixed] [SHARDS_IN_ALL=500].
# The last line is one JSON object: the worst ratio of peak to formula.
memory: measuring
	target/release/sluicegate-measure $@ $(if $(LOADS),--loads $(LOADS)) $(if $(SHARDS_IN_ALL),--shards $(SHARDS_IN_ALL))

# The picture of the README: a burst of 20 times what the table takes, with and without Sluicegate in between.
burst: measuring
	target/release/sluicegate-measure $@ --svg docs/burst.svg

# What is deployed with, by tools that are not ours: make deploy-verify [CHECKS="image helm"]. What a machine lacks is skipped
# by name; `sluicegate` is taken from SLUICEGATE_BIN, target/release or target/debug.
.PHONY: deploy-verify
deploy-verify:
	@deploy/verify.sh $(CHECKS)

.PHONY: measuring
measuring:
	cargo build --release --locked -p sluicegate-cli -p sluicegate-tests --bins
