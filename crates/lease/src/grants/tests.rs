use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const FAILOVER: Duration = Duration::from_millis(3_000);
const MARGIN: Duration = Duration::from_millis(500);
const BUDGET: WriteBudget = WriteBudget { total_milli: 1_000_003, floor_milli: 5_000 };

fn id(n: usize) -> WorkerId {
    WorkerId::new(format!("w{n:02}"))
}

fn see(division: &mut Division, rows: &[WorkerRow], look: Look, grant: &Grant) -> Option<Divided> {
    let counted = division.count(rows, look);
    division.divide(&counted, grant)
}

fn demands(demands: &[u64]) -> BTreeMap<WorkerId, u64> {
    demands.iter().enumerate().map(|(n, demand)| (id(n), *demand)).collect()
}

proptest! {
    #[test]
    fn shares_sum_to_the_budget_and_keep_the_floor(
        total in 0_u64..2_000_000, floor in 0_u64..50_000, given in prop::collection::vec(0_u64..1_000_000_000, 1..40)
    ) {
        let budget = WriteBudget { total_milli: total, floor_milli: floor };
        let shares = shares(budget, &demands(&given));
        prop_assert_eq!(shares.values().sum::<u64>(), total);
        let fits = floor * u64::try_from(given.len()).unwrap() <= total;
        prop_assert!(shares.values().all(|share| !fits || *share >= floor));
        let half = total / u64::try_from(given.len()).unwrap() / 2;
        for (n, demand) in given.iter().enumerate() {
            prop_assert!(shares[&id(n)] >= half.min(*demand).saturating_sub(10), "half of an equal part is sure (R6)");
        }
        for (a, b) in given.iter().zip(given.iter().skip(1)) {
            let (n, m) = (given.iter().position(|x| x == a).unwrap(), given.iter().position(|x| x == b).unwrap());
            prop_assert!(a >= b || shares[&id(n)] <= shares[&id(m)] + 1, "who asks for less gets no more");
        }
    }
}

#[test]
fn demand_divides_what_the_floor_leaves() {
    let budget = WriteBudget { total_milli: 1_000, floor_milli: 100 };
    let of = |given: &[u64]| shares(budget, &demands(given)).into_values().collect::<Vec<_>>();
    assert_eq!(of(&[0, 0, 0]), [334, 333, 333]);
    assert_eq!(of(&[300, 0, 100]), [650, 100, 250]);
    assert_eq!(
        of(&[9_000, 0, 200]),
        [690, 100, 210],
        "who asks for little gets it, whatever the others ask for"
    );
    assert_eq!(of(&[1; 11]), [91, 91, 91, 91, 91, 91, 91, 91, 91, 91, 90], "too many for the floor");
    assert!(shares(budget, &BTreeMap::new()).is_empty());
}

#[test]
fn a_raise_waits_until_the_others_have_published_less() {
    let now = Instant::now();
    let row = |n: usize, heartbeat, grant| WorkerRow {
        heartbeat,
        write_grant_milli: grant,
        ..WorkerRow::new(id(n))
    };
    let budget = WriteBudget { total_milli: 1_000, floor_milli: 0 };
    let (grant, mut division) = (Grant::new(Box::new(|_| {})), Division::new(Some(budget), id(0), FAILOVER));
    assert_eq!(see(&mut division, &[row(1, 7, 1_000)], now.into(), &grant), None, "no row yet");
    assert_eq!(grant.publish(1), 0);
    let divided = see(&mut division, &[row(0, 1, 0), row(1, 7, 1_000)], now.into(), &grant).unwrap();
    assert_eq!(divided, Divided { due_milli: 500, workers: 2, publish: true });
    assert_eq!(grant.publish(2), 500);
    see(&mut division, &[row(0, 1, 0), row(1, 7, 700)], now.into(), &grant);
    assert_eq!(grant.used(), 0, "the row shows an older heartbeat than the newest");
    see(&mut division, &[row(0, 2, 500), row(1, 8, 700)], now.into(), &grant);
    assert_eq!(grant.used(), 300, "as much as the other leaves");
    see(&mut division, &[row(0, 2, 500), row(1, 9, 500)], now.into(), &grant);
    assert_eq!(grant.used(), 500);
    let silent =
        see(&mut division, &[row(0, 2, 500), row(1, 9, 500)], (now + FAILOVER).into(), &grant).unwrap();
    assert_eq!((silent.due_milli, silent.workers, grant.used()), (1_000, 1, 500), "published first");
    grant.lapse();
    assert_eq!((grant.used(), grant.publish(3)), (0, 0));
}

/// One worker of the model: the real grant and division, and what is on its way.
struct Model {
    grant: Grant,
    division: Division,
    heartbeat: u64,
    demand: u64,
    right_until: Option<Instant>,
    /// A row that was built and has not landed: with when it was sent.
    sending: Option<(WorkerRow, Instant)>,
    /// A row that landed and is not confirmed.
    landed: Option<Instant>,
    /// What a read showed that is not taken in.
    reading: Option<(Vec<WorkerRow>, Instant)>,
    dead: bool,
}

impl Model {
    fn new(n: usize) -> Self {
        Self {
            grant: Grant::new(Box::new(|_| {})),
            division: Division::new(Some(BUDGET), id(n), FAILOVER),
            heartbeat: 0,
            demand: 1_000,
            right_until: None,
            sending: None,
            landed: None,
            reading: None,
            dead: false,
        }
    }

    fn may_use(&self, now: Instant) -> u64 {
        let right = !self.dead && self.right_until.is_some_and(|until| now < until);
        if right { self.grant.used() } else { 0 }
    }
}

/// What happens next, to which worker, after how many milliseconds.
#[derive(Debug, Clone)]
enum Step {
    Send,
    Land,
    Confirm,
    Ask,
    Answer,
    Demand(u64),
    Die,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step, u64)>> {
    let step = prop_oneof![
        4 => Just(Step::Send),
        4 => Just(Step::Land),
        4 => Just(Step::Confirm),
        5 => Just(Step::Ask),
        5 => Just(Step::Answer),
        1 => (0_u64..5_000_000).prop_map(Step::Demand),
        1 => Just(Step::Die),
    ];
    let wait = prop_oneof![8 => 0_u64..100, 1 => 500_u64..4_000];
    prop::collection::vec((0_usize..5, step, wait), 1..400)
}

struct Table {
    rows: BTreeMap<WorkerId, WorkerRow>,
    workers: Vec<Model>,
    now: Instant,
}

impl Table {
    fn take(&mut self, n: usize, step: &Step) {
        let now = self.now;
        let worker = &mut self.workers[n];
        if worker.dead {
            return;
        }
        match *step {
            Step::Send if worker.sending.is_none() && worker.landed.is_none() => {
                if worker.right_until.is_some_and(|until| now >= until) {
                    worker.grant.lapse();
                }
                worker.heartbeat += 1;
                let row = WorkerRow {
                    heartbeat: worker.heartbeat,
                    write_grant_milli: worker.grant.publish(worker.heartbeat),
                    write_demand_milli: worker.demand,
                    ..WorkerRow::new(id(n))
                };
                worker.sending = Some((row, now));
            }
            Step::Land => {
                if let Some((row, sent_at)) = worker.sending.take() {
                    self.rows.insert(id(n), row);
                    worker.landed = Some(sent_at);
                }
            }
            Step::Confirm => {
                if let Some(sent_at) = worker.landed.take() {
                    if worker.right_until.is_some_and(|until| now >= until) {
                        worker.grant.lapse();
                    }
                    worker.right_until = worker.right_until.max(Some(sent_at + FAILOVER - MARGIN));
                }
            }
            Step::Ask => worker.reading = Some((self.rows.values().cloned().collect(), now)),
            Step::Answer => {
                if let Some((rows, asked)) = worker.reading.take() {
                    see(&mut worker.division, &rows, Look { asked, answered: now }, &worker.grant);
                }
            }
            Step::Demand(demand) => worker.demand = demand,
            Step::Die => worker.dead = true,
            Step::Send => {}
        }
    }

    fn used(&self) -> u64 {
        self.workers.iter().map(|worker| worker.may_use(self.now)).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    /// Law F1, whatever comes between the sending and the landing of heartbeats, and between the asking and the answer of
    /// reads. And when nothing stands in the way, everything is granted.
    #[test]
    fn what_is_used_never_sums_above_the_budget(history in steps()) {
        let mut table = Table {
            rows: BTreeMap::new(), workers: (0..5).map(Model::new).collect(), now: Instant::now(),
        };
        for (n, step, wait) in history {
            table.now += Duration::from_millis(wait);
            table.take(n, &step);
            prop_assert!(table.used() <= BUDGET.total_milli, "{step:?} of {n}: {}", table.used());
        }
        let calm = [Step::Land, Step::Confirm, Step::Send, Step::Land, Step::Confirm, Step::Ask, Step::Answer];
        for _round in 0..6 {
            table.now += Duration::from_millis(1_000);
            for n in 0..5 {
                for step in &calm {
                    table.take(n, step);
                    prop_assert!(table.used() <= BUDGET.total_milli, "in calm: {}", table.used());
                }
            }
        }
        let alive = table.workers.iter().any(|worker| !worker.dead);
        prop_assert!(!alive || table.used() == BUDGET.total_milli, "only {} is used", table.used());
    }
}

#[test]
fn every_change_of_what_may_be_used_is_told() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let grant = Grant::new(Box::new(move |used| heard.lock().unwrap().push(used)));
    grant.publish(1);
    grant.settle((1, 0), 100, 70);
    grant.publish(2);
    grant.settle((2, 70), 100, 70);
    grant.settle((2, 70), 100, 20);
    grant.lapse();
    assert_eq!(*told.lock().unwrap(), [0, 70, 20, 0]);
}
