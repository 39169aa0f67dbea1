use super::*;

/// So many seconds of steps in which a table of 40 units a second takes this from each of two workers, each step.
fn steps(seconds: u32, taken: fn(Duration) -> [f64; 2]) -> Vec<Step> {
    let step = |n: u32| {
        let at = STEP * n;
        let seen = taken(at).map(|taken| Seen { taken, refused: 0.0, waiting: 100.0 });
        let workers = [WorkerId::new("a"), WorkerId::new("b")].into_iter().zip(seen).collect();
        Step { at, gives: 40.0, quiet: true, workers }
    };
    (1..=seconds * 4).map(step).collect()
}

fn laws(steps: Vec<Step>) -> Vec<String> {
    let course = Course { steps, largest: 4.0, waits: Vec::new() };
    course.judge().0.into_iter().map(|broken| broken.why.split(':').next().unwrap().to_owned()).collect()
}

const ALL: [&str; 3] = ["the table is left unused", "a is left behind", "b is left behind"];

#[test]
fn half_of_what_the_table_gives_is_enough() {
    assert_eq!(laws(steps(60, |_| [2.6, 2.6])), [""; 0]);
    assert_eq!(laws(steps(60, |_| [2.3, 2.3])), ALL);
}

#[test]
fn one_of_two_may_not_be_left_behind() {
    assert_eq!(laws(steps(60, |_| [7.7, 2.3])), ["b is left behind"]);
    assert_eq!(laws(steps(60, |_| [7.4, 2.6])), [""; 0]);
}

#[test]
fn a_pause_of_five_seconds_is_explained_by_the_mean_and_one_of_six_is_not() {
    let paused = |seconds: u64| {
        let mut steps = steps(60, |_| [5.0, 5.0]);
        let from = Duration::from_secs(30);
        for step in
            steps.iter_mut().filter(|step| step.at > from && step.at <= from + Duration::from_secs(seconds))
        {
            step.workers.values_mut().for_each(|seen| seen.taken = 0.0);
        }
        laws(steps)
    };
    assert_eq!(paused(5), [""; 0]);
    assert_eq!(paused(6), ALL);
}

#[test]
fn the_first_ten_seconds_after_a_rise_are_for_finding_it() {
    let risen = |found_after: u64| {
        let mut steps = steps(90, |_| [5.0, 5.0]);
        let rises = Duration::from_secs(30);
        for step in &mut steps {
            let low = step.at <= rises;
            step.gives = if low { 2.0 } else { 40.0 };
            let late = step.at <= rises + Duration::from_secs(found_after);
            step.workers.values_mut().for_each(|seen| seen.taken = if late { 0.25 } else { 5.0 });
        }
        laws(steps)
    };
    assert_eq!(risen(10), [""; 0]);
    assert_eq!(risen(17), ALL);
}

#[test]
fn nothing_is_judged_while_little_waits_or_something_is_done_to_the_fleet() {
    let changed = |change: fn(&mut Step)| {
        let mut steps = steps(60, |_| [0.1, 0.1]);
        steps
            .iter_mut()
            .filter(|step| step.at.subsec_millis() == 0 && step.at.as_secs() % 10 == 0)
            .for_each(change);
        laws(steps)
    };
    assert_eq!(changed(|_| ()), ALL);
    assert_eq!(changed(|step| step.quiet = false), [""; 0]);
    assert_eq!(changed(|step| step.workers.values_mut().for_each(|seen| seen.waiting = 1.0)), [""; 0]);
}

#[test]
fn who_has_nothing_to_write_leaves_the_parts_to_the_others() {
    let mut steps = steps(60, |_| [4.0, 0.0]);
    for step in &mut steps {
        step.workers.insert(WorkerId::new("b"), Seen::default());
    }
    // Of 10 units a step the only one that writes gets 4.
    assert_eq!(laws(steps), ["the table is left unused", "a is left behind"]);
}

#[test]
fn where_single_items_decide_nothing_is_judged() {
    let course = Course { steps: steps(60, |_| [0.0, 0.0]), largest: 70.0, waits: Vec::new() };
    assert_eq!(course.judge().1, Judged::default());
}

#[test]
fn an_item_whose_range_has_room_does_not_wait_for_another_range() {
    let wait = |begun: u64, until: u64| Wait {
        worker: WorkerId::new("a"),
        begun: Duration::from_secs(begun),
        until: Duration::from_secs(until),
        quiet_since: Duration::from_secs(5),
    };
    let broken = |waits: &[Wait]| {
        let course = Course { waits: waits.to_vec(), ..Course::default() };
        course.judge().0.len()
    };
    assert_eq!(broken(&[wait(14, 90), wait(15, 18), wait(50, 51)]), 0);
    assert_eq!(broken(&[wait(15, 19), wait(50, 60)]), 1, "the longest is told");
}
