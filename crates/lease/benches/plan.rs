//! How long a plan takes, and how that grows: leases from 100 to 20,000, a worker for every 20 of them.

#![expect(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sluicegate_checkpoint::{LeaseState, Position, ShardId};
use sluicegate_lease::model::{Lease, WorkerId};
use sluicegate_lease::plan::{PlanPolicy, plan};
use sluicegate_lease::throughput::Throughput;
use sluicegate_lease::view::{FleetView, Health, LeaseView, WorkerView};

const LEASES_PER_WORKER: usize = 20;

/// Makes the view of a fleet with so many leases.
type Scenario = fn(usize) -> FleetView;

fn id(n: usize) -> WorkerId {
    WorkerId::new(format!("sluicegate-7d9c5b8f4-{n:05}-550e8400e29b41d4a716446655440000"))
}

fn worker() -> WorkerView {
    WorkerView {
        health: Health::Active,
        seen_alive: true,
        packing_versions: [1].into(),
        state_version: 1,
        address: None,
    }
}

/// A fleet as it is when nothing happens: every lease with its worker, each the child of one that is finished.
fn steady(leases: usize) -> FleetView {
    let workers = leases / LEASES_PER_WORKER;
    let view = |n: usize| {
        let key = ShardId::new(format!("shardId-{n:012}"));
        let row = Lease::unowned(key.clone(), Position::TrimHorizon, LeaseState::starting(None));
        let kilobytes = u64::try_from(n * 7919 % 1_000).unwrap_or_default();
        let row = Lease {
            parents: [ShardId::new(format!("shardId-9{:011}", n / 2))].into(),
            throughput: Some(Throughput::from_kilobytes(kilobytes)),
            ..row.taken_by(&id(n % workers))
        };
        (key, LeaseView { row, owner_gone: false, free_rounds: 0 })
    };
    FleetView {
        me: id(0),
        leases: (0..leases).map(view).collect(),
        workers: (0..workers).map(|n| (id(n), worker())).collect(),
    }
}

fn a_worker_died(leases: usize) -> FleetView {
    let mut view = steady(leases);
    if let Some(dead) = view.workers.get_mut(&id(1)) {
        dead.health = Health::Silent;
    }
    view
}

fn a_worker_joined(leases: usize) -> FleetView {
    let mut view = steady(leases);
    view.workers.insert(id(leases), worker());
    view
}

fn cold_start(leases: usize) -> FleetView {
    let mut view = steady(leases);
    view.leases.values_mut().for_each(|lease| lease.row.owner = None);
    view
}

fn half_of_the_fleet_died(leases: usize) -> FleetView {
    let mut view = steady(leases);
    let dead = view.workers.values_mut().step_by(2);
    dead.for_each(|worker| worker.health = Health::Silent);
    view.workers.insert(id(0), worker());
    view
}

fn plans(criterion: &mut Criterion) {
    let scenarios: [(&str, Scenario); 5] = [
        ("steady", steady),
        ("a worker died", a_worker_died),
        ("a worker joined", a_worker_joined),
        ("half of the fleet died", half_of_the_fleet_died),
        ("cold start", cold_start),
    ];
    for (by, weigh_by_throughput) in [("count", false), ("weight", true)] {
        let policy = PlanPolicy { weigh_by_throughput, ..PlanPolicy::default() };
        for (name, view) in scenarios {
            let mut group = criterion.benchmark_group(format!("{name}, by {by}"));
            group.sample_size(20);
            for leases in [100, 1_000, 10_000, 20_000] {
                let view = view(leases);
                let case = BenchmarkId::from_parameter(format!("{leases}x{}", leases / LEASES_PER_WORKER));
                group.bench_with_input(case, &view, |bencher, view| {
                    bencher.iter(|| plan(black_box(view), &policy));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, plans);
criterion_main!(benches);
