use super::*;

fn fault(effect: Effect) -> Fault {
    Fault { service: None, operations: Vec::new(), resource: None, from: Duration::ZERO, until: None, effect }
}

fn asked(service: Service, operation: &'static str, resource: &str) -> Asked<'static> {
    Asked { service, operation, resources: vec![resource.to_owned()] }
}

fn put() -> Asked<'static> {
    asked(Service::DynamoDb, "PutItem", "t")
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The plans for this many requests, one each second.
fn plans(faults: Vec<Fault>, asked: &Asked<'_>, count: u64) -> Vec<Plan> {
    let script = FaultScript { seed: None, faults };
    (0..count).map(|nth| script.plan(asked, seconds(nth), |fault| Draws::of(1, fault as u64, nth))).collect()
}

fn outcome(faults: Vec<Fault>, asked: &Asked<'_>, at: u64) -> Outcome {
    plans(faults, asked, at + 1).last().map_or(Outcome::Answered, |plan| plan.outcome)
}

#[test]
fn a_fault_befalls_whom_it_names_and_nobody_else() {
    let mut outage = fault(Effect::Outage(Outage::Refuse));
    outage.service = Some(Service::DynamoDb);
    outage.operations = vec!["PutItem".to_owned(), "BatchWriteItem".to_owned()];
    outage.resource = Some("t".to_owned());
    let refused = Outcome::Refused(Failure::Unavailable);
    assert_eq!(outcome(vec![outage.clone()], &put(), 0), refused);
    for other in [
        asked(Service::Kinesis, "PutItem", "t"),
        asked(Service::DynamoDb, "GetItem", "t"),
        asked(Service::DynamoDb, "PutItem", "u"),
    ] {
        assert_eq!(outcome(vec![outage.clone()], &other, 0), Outcome::Answered, "{other:?}");
    }
    let several = Asked { resources: vec!["u".to_owned(), "t".to_owned()], ..put() };
    assert_eq!(outcome(vec![outage], &several, 0), refused);
}

#[test]
fn a_fault_begins_and_ends() {
    let mut outage = fault(Effect::Outage(Outage::Silence));
    (outage.from, outage.until) = (seconds(2), Some(seconds(5)));
    let at = |at| outcome(vec![outage.clone()], &put(), at);
    assert_eq!((at(1), at(5)), (Outcome::Answered, Outcome::Answered));
    assert_eq!((at(2), at(4)), (Outcome::Silence(seconds(3)), Outcome::Silence(seconds(1))));
    outage.until = None;
    assert_eq!(outcome(vec![outage], &put(), 2), Outcome::Silence(LONGEST_WAIT));
}

#[test]
fn shares_are_kept_and_the_first_fault_that_applies_counts() {
    let errors = |rate, with| fault(Effect::Errors { rate, with });
    let faults = vec![
        errors(0.1, Failure::Internal),
        errors(0.0, Failure::Unavailable),
        fault(Effect::LostAnswers { rate: 0.5 }),
    ];
    let plans = plans(faults, &put(), 2_000);
    let count = |outcome| plans.iter().filter(|plan| plan.outcome == outcome).count();
    let internal = count(Outcome::Refused(Failure::Internal));
    assert!((150..250).contains(&internal), "{internal}");
    assert_eq!(count(Outcome::Refused(Failure::Unavailable)), 0);
    let lost = count(Outcome::AnswerLost);
    assert!((800..1_000).contains(&lost), "half of the other nine tenths: {lost}");
}

#[test]
fn delays_add_up_and_have_the_quantiles_that_were_asked_for() {
    let millis = Duration::from_millis;
    let quantiles = Latency::Quantiles { p50: millis(10), p99: millis(100) };
    let faults = vec![
        fault(Effect::Latency(Latency::Fixed(millis(5)))),
        fault(Effect::Latency(Latency::Between(millis(10), millis(20)))),
    ];
    for plan in plans(faults, &put(), 200) {
        assert!((millis(15)..millis(25)).contains(&plan.delay), "{plan:?}");
    }
    let mut delays: Vec<_> =
        plans(vec![fault(Effect::Latency(quantiles))], &put(), 4_000).iter().map(|plan| plan.delay).collect();
    delays.sort_unstable();
    assert!((millis(9)..millis(11)).contains(&delays[2_000]), "{:?}", delays[2_000]);
    assert!((millis(80)..millis(125)).contains(&delays[3_960]), "{:?}", delays[3_960]);
}

#[test]
fn what_is_done_to_items_is_handed_on() {
    let faults = vec![
        fault(Effect::RejectItems { holding: b"bad".to_vec() }),
        fault(Effect::Unprocessed { rate: 0.25 }),
    ];
    let plan = plans(faults, &put(), 1).remove(0);
    assert_eq!(plan.outcome, Outcome::Answered);
    assert_eq!(plan.tampering.rejected, [b"bad".to_vec()]);
    assert_eq!(plan.tampering.unprocessed, Some((0.25, Draws::of(1, 1, 0))));
    assert_eq!(plans(Vec::new(), &put(), 1), [Plan::default()]);
}
