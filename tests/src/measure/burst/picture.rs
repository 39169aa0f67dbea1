//! What the picture of a burst shows. **Pure.**

use super::svg::{Column, Picture, Series, Style, grouped};
use super::{BurstPlan, KIND, Moment, Outcome, Report, number};

const GREY: &str = "#6e7781";
const BLUE: &str = "#0969da";
const RED: &str = "#cf222e";
const AMBER: &str = "#9a6700";
const PURPLE: &str = "#8250df";
/// Seconds that rates are means of: requests of 64 KB make single seconds jump.
const OVER: usize = 5;

pub(super) fn of(report: &Report, plan: &BurstPlan) -> Picture {
    let lasts = plan.lasts.as_secs_f64();
    let begins = report.without.course.begins();
    let alone = f64::from(plan.rate()) * lasts / f64::from(plan.table_wcu);
    Picture {
        title: format!("A burst of {} times what the table takes", plan.times),
        subtitle: format!(
            "{} JSON events of about {} bytes in {lasts:.0} s, {} keys; a DynamoDB table of {} write units a second",
            grouped(number(report.with.offered)),
            (mean_bytes() + 25) / 50 * 50,
            grouped(number(plan.keys())),
            grouped(f64::from(plan.table_wcu)),
        ),
        columns: vec![
            column("Straight to the table", &report.without, plan),
            column("With Sluicegate in between", &report.with, plan),
        ],
        rows: [
            "Events a second",
            "Write units a second",
            "Backlog, in events",
            "Data availability: age of the oldest event not in the table yet, in seconds",
        ]
        .map(str::to_owned)
        .to_vec(),
        shaded: (begins, begins + lasts, "burst".to_owned()),
        notes: vec![
            format!(
                "Straight to the table: one item for each event. The producer keeps {} events at most, writes 25 at once, repeats what is throttled,",
                grouped(number(plan.queue as u64)),
            ),
            format!(
                "with backoff, until it is stored, and drops what finds no room. One with room for everything would need {} minutes. Rates are means of {OVER} seconds.",
                grouped(alone / 60.0),
            ),
        ],
    }
}

fn mean_bytes() -> usize {
    (0..1_000).map(|number| KIND.event(number).len()).sum::<usize>() / 1_000
}

fn column(title: &str, outcome: &Outcome, plan: &BurstPlan) -> Column {
    let course = &outcome.course;
    let rate = |name: String, colour, style, of: fn(&Moment) -> f64| Series {
        name,
        colour,
        style,
        points: course.means(OVER, of),
    };
    let level = |name: String, colour, style, of: fn(&Moment) -> f64| Series {
        name,
        colour,
        style,
        points: course.means(1, of),
    };
    let after = course.drained_at() - course.begins() - plan.lasts.as_secs_f64();
    let lasted = format!(
        "at most {} s; the last stored {} s after the burst",
        grouped(course.max_age()),
        grouped(after.max(0.0))
    );
    let capacity = f64::from(plan.table_wcu);
    let ends = course.0.last().map_or(0.0, |moment| moment.at + 1.0);
    let mut waits = vec![level(
        format!("waiting, at most {}", grouped(number(course.max_backlog()))),
        AMBER,
        Style::Area,
        |moment| number(moment.backlog),
    )];
    if outcome.dropped > 0 {
        let name = format!("dropped, {} in the end", grouped(number(outcome.dropped)));
        waits.push(level(name, RED, Style::Line, |moment| number(moment.dropped)));
    } else {
        waits.push(Series {
            name: "dropped none".to_owned(),
            colour: RED,
            style: Style::Line,
            points: Vec::new(),
        });
    }
    Column {
        title: title.to_owned(),
        panels: vec![
            vec![
                level("offered".to_owned(), GREY, Style::Area, |moment| number(moment.offered)),
                rate(
                    format!("stored, {} in all", grouped(number(outcome.stored))),
                    BLUE,
                    Style::Line,
                    |moment| number(moment.stored),
                ),
            ],
            vec![
                rate(
                    format!("accepted, {} in all", grouped(course.write_units())),
                    BLUE,
                    Style::Area,
                    |moment| moment.accepted,
                ),
                rate(
                    format!("throttled, {}", grouped(course.throttled_units())),
                    RED,
                    Style::Line,
                    |moment| moment.throttled,
                ),
                Series {
                    name: "capacity".to_owned(),
                    colour: GREY,
                    style: Style::Dashes,
                    points: vec![(0.0, capacity), (ends, capacity)],
                },
            ],
            waits,
            vec![level(lasted, PURPLE, Style::Area, |moment| moment.age)],
        ],
    }
}
