//! Every setting with its default and what it does: one row each, for `--help`, `check` and the README.

/// One setting, for `--help`, `check` and the README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its name in the file; in the environment in capitals behind [`ENV_PREFIX`](super::ENV_PREFIX).
    pub name: &'static str,
    /// Its default.
    pub default: &'static str,
    /// What it does, its range, and what too low and too high cost.
    pub help: &'static str,
}

/// All settings, in the order that `--help` lists them.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "initial_position",
        default: "TRIM_HORIZON",
        help: "Where the application starts the first time: TRIM_HORIZON, LATEST or AT_TIMESTAMP:<RFC 3339>. Recorded once; later changes have no effect. (KCL: initialPositionInStream)",
    },
    Setting {
        name: "failover_time",
        default: "10s",
        help: "How long a worker's heartbeat stands still before its shards are taken over; 1s to 5m. Lower: faster failover, more heartbeats, less room for a paused process. (KCL: failoverTimeMillis, 10 s)",
    },
    Setting {
        name: "safety_margin",
        default: "500ms",
        help: "How much earlier a worker counts its own right as over; below a third of failover_time.",
    },
    Setting {
        name: "max_leases_per_worker",
        default: "0",
        help: "Most shards of one worker; 0 sets no bound. (KCL: maxLeasesForWorker)",
    },
    Setting {
        name: "weigh_by_throughput",
        default: "false",
        help: "Balance leases by the bytes a second that their shards carry (throughputKBps in their rows) and 16 KB beside them, not by count; nothing moves while every worker is within the heaviest lease, or a quarter, of the mean. Set it for the whole fleet at once: workers that balance differently hand leases back and forth. (KCL: leaseAssignmentStrategy)",
    },
    Setting {
        name: "handoff_deadline",
        default: "500ms",
        help: "Longest a planned hand-over waits for deliveries; what is announced then goes along and is delivered again. (KCL: gracefulLeaseHandoffTimeoutMillis, 30 s)",
    },
    Setting {
        name: "drain_timeout",
        default: "25s",
        help: "Longest a stop takes; keep it below terminationGracePeriodSeconds (Kubernetes: 30 s).",
    },
    Setting {
        name: "min_read_interval",
        default: "200ms",
        help: "Shortest time between two GetRecords of a shard. Kinesis allows five a second for all consumers of a shard together; where others take some of them a worker makes fewer and larger ones. (KCL: 200 ms)",
    },
    Setting {
        name: "idle_read_interval",
        default: "1s",
        help: "Time between two GetRecords of a shard that is caught up. Lower: fresher by as much. (KCL: idleTimeBetweenReadsInMillis, 1.5 s)",
    },
    Setting {
        name: "page_bytes",
        default: "512KiB",
        help: "Bytes a GetRecords should return where nothing is scarce; 64KiB to 10MiB. A page grows to 20 times that where calls are scarce, within a quarter of the memory that is free, and shrinks where bytes or memory are. Higher: fewer calls, more memory for each shard.",
    },
    Setting {
        name: "max_batch_bytes",
        default: "16MiB",
        help: "Most payload bytes of a batch; 64KiB to 64MiB. Batches are closed where their items are full, at a thirty-second of it or more. Higher: fuller items where there are many keys, fewer write units, more memory and more to deliver again after a crash.",
    },
    Setting {
        name: "max_batch_records",
        default: "100000",
        help: "Kinesis records at which a batch is closed; at least 1.",
    },
    Setting {
        name: "max_batch_age",
        default: "20s",
        help: "Time after which a batch is closed whatever its size; 10ms to 2m. Higher: fuller items where little arrives; lower: events are queryable earlier.",
    },
    Setting {
        name: "max_batch_span",
        default: "60s",
        help: "Distance of arrival times at which a batch is closed; 1s to 60s. Readers look back by 60 s.",
    },
    Setting {
        name: "max_in_flight",
        default: "4",
        help: "Batches of a shard announced and not committed; 1 to 12. 1 stores each shard's batches in order.",
    },
    Setting {
        name: "commit_delay",
        default: "1s",
        help: "How long a commit waits for an announce to ride on; 0s to 60s. Lower: more lease writes.",
    },
    Setting {
        name: "aggregate_key",
        default: "partition-key",
        help: "Which item an event belongs to: partition-key, or a template over JSON pointers such as {/carrier}-{/month}.",
    },
    Setting {
        name: "max_item_bytes",
        default: "396KiB",
        help: "Most bytes of an item, attribute names counted; 4KiB to 400KiB.",
    },
    Setting {
        name: "spread",
        default: "0",
        help: "Over how many partition keys one aggregate key is spread; 1 to 1000, and it may only grow. 0 takes one for every 500 WCU/s of write_budget_wcu, where that is a number, so that a single hot key can use the whole budget; else 1.",
    },
    Setting {
        name: "zstd_level",
        default: "3",
        help: "Compression level, 1 to 19; 0 stores events as they are.",
    },
    Setting {
        name: "ttl_days",
        default: "0",
        help: "Days after arrival at which items expire; 0 keeps them.",
    },
    Setting {
        name: "foreign_user_records",
        default: "auto",
        help: "What becomes of user records of aggregated records whose hash key is not of their shard. auto leaves out, counted, those of aggregates that the native KPL put, which sends them again, and keeps all others; keep keeps all, and what the KPL sends again after a split is stored twice; drop leaves all out, and loses what other libraries aggregate. A stream with RecordDistributionStrategy AUTO keeps all whatever this says. Which is right for which producer: docs/guarantees.md.",
    },
    Setting {
        name: "filter",
        default: "none",
        help: "Which events are stored, by their fields: /carrier == \"AA\" and (/dep_delay > 15 or not exists /tailnum). none stores all. What is left out is counted and gone once its batch is committed; events that are no JSON are kept. See docs/transform.md.",
    },
    Setting {
        name: "fields",
        default: "none",
        help: "Which fields of an event are stored, as JSON pointers: /carrier /dep_delay /origin. none stores events as they were published.",
    },
    Setting {
        name: "reduce",
        default: "none",
        help: "Stores counts and sums instead of events: /dep_delay /distance per 1h counts events by key and hour of arrival, with count, sum, least and greatest of both fields; per 1d by /time_hour goes by a field that holds a time, by /t as seconds by a number of seconds, by /t in Europe/Berlin by times without an offset. none stores events. Set filter, fields and reduce when every worker runs a build that has them.",
    },
    Setting {
        name: "unreadable",
        default: "auto",
        help: "What is done with events that filter, fields or reduce cannot read (not JSON, or with fields no object): keep stores them as they came, whole, and counts them; dead-letter puts them into the dead-letter table instead, and their shard waits for it. auto is dead-letter with fields or reduce, else keep. See docs/transform.md.",
    },
    Setting {
        name: "dead_letter_ttl_days",
        default: "0",
        help: "Days after which a dead letter expires, counted from when it was put; 0 keeps it. For letters that are put from then on.",
    },
    Setting {
        name: "buffer_bytes",
        default: "128MiB",
        help: "Memory for records from fetch to durable, all shards together; at least twice max_batch_bytes. When it is spent, reading stops, and batches are closed before they are full.",
    },
    Setting {
        name: "write_budget_wcu",
        default: "auto",
        help: "Write capacity units a second that the whole fleet may use of the table, divided by demand. auto takes what the table says: its provisioned capacity, or on demand the maximum that was set, or its warm throughput, which the fleet goes beyond where the table takes more; it is read again every 10 s. A number is never exceeded: give one where others write to the table too. 0 sets no budget, and the rate is what the table does not refuse. The same for the whole fleet.",
    },
    Setting {
        name: "accept_gap",
        default: "false",
        help: "Give up records that retention has overtaken, counted, instead of stopping their shard.",
    },
    Setting {
        name: "admin_token",
        default: "none",
        help: "Bearer token that /metrics, /fleet and POST /nudge of the admin server ask for, 16 to 256 characters; /, /livez and /readyz stay open. The same for the whole fleet: workers nudge each other with it. Give it as an environment variable from a secret. none lets everybody in.",
    },
    Setting {
        name: "log",
        default: "info",
        help: "What is logged: error, warn, info, debug, trace, or a filter such as sluicegate_lease=debug,info.",
    },
    Setting {
        name: "log_format",
        default: "auto",
        help: "text for people, json for machines; auto is text on a terminal and json elsewhere.",
    },
    Setting { name: "seed", default: "0", help: "Seeds all jitter; 0 takes one from the operating system." },
];
