//! Items are full where there is a backlog: through the state machine of a shard and the packer, on counted time.

use bytes::Bytes;
use sluicegate_tests::fill::events::{flights, incompressible};
use sluicegate_tests::fill::shard::Pace;
use sluicegate_tests::fill::{Fill, Measured, measure};
use sluicegate_worker::consumer::batcher::ClosedBy;
use sluicegate_worker::worker::Settings;

/// A sixth of the defaults: the same proportions with less to pack.
fn small() -> Settings {
    let mut settings = Settings::default();
    settings.cut.max_bytes /= 6;
    settings.read.page_bytes /= 6;
    settings.parameters.max_item_bytes /= 6;
    settings
}

fn of(measured: &Measured, by: ClosedBy) -> Fill {
    measured.closed_by.get(&by).copied().unwrap_or_default()
}

fn assert_full(measured: &Measured, batches: u64) {
    let by_size = of(measured, ClosedBy::Size);
    assert!(by_size.batches >= batches, "closed by size: {measured:?}");
    assert!(
        by_size.of_items() >= 0.85 && by_size.of_batches() >= 0.85,
        "{:?} {measured:?}",
        by_size.of_items()
    );
}

#[test]
fn the_items_of_three_airports_are_full() -> anyhow::Result<()> {
    let events = flights(7, 60_000);
    assert_full(&measure(&small(), &events, 4, Pace::BACKLOG)?, 12);
    assert_full(&measure(&small(), &events, 1, Pace::BACKLOG)?, 4);
    Ok(())
}

#[test]
fn items_are_full_that_nothing_makes_smaller() -> anyhow::Result<()> {
    assert_full(&measure(&small(), &incompressible(7, 6_000, 1_024), 1, Pace::BACKLOG)?, 5);
    // As the table's budget is tested with.
    let mut settings = Settings::default();
    settings.parameters.max_item_bytes = 64 * 1_024;
    assert_full(&measure(&settings, &incompressible(8, 12_000, 1_024), 1, Pace::BACKLOG)?, 2);
    Ok(())
}

/// A table that falls behind makes batches wait, not small.
#[test]
fn items_are_full_before_a_table_that_is_slow() -> anyhow::Result<()> {
    let slow = Pace { write_units: 100, ..Pace::BACKLOG };
    let settings = Settings { max_in_flight: 2, ..small() };
    let measured = measure(&settings, &incompressible(9, 9_000, 1_024), 1, slow)?;
    assert_full(&measured, 3);
    assert_eq!(of(&measured, ClosedBy::Age).batches, 0, "{measured:?}");
    Ok(())
}

/// What arrives slowly is not kept waiting.
#[test]
fn batches_are_short_where_nothing_waits() -> anyhow::Result<()> {
    let settings = Settings::default();
    let rate = 20_000;
    let events: Vec<_> = incompressible(10, 1_200, 1_024);
    let payload: u64 = events.iter().map(|event| Bytes::len(&event.data) as u64).sum();
    let trickle = Pace { written: rate, read: rate, write_units: 1_000 };
    let mut settings = Settings { max_in_flight: 4, ..settings };
    settings.read.page_bytes = 10_000;
    let measured = measure(&settings, &events, 1, trickle)?;
    let aged = of(&measured, ClosedBy::Age);
    let most = rate * settings.cut.max_age.as_secs() + 20_000;
    assert!(aged.batches >= 2 && aged.payload_bytes <= aged.batches * most, "{measured:?}");
    assert!(aged.payload_bytes * 2 > payload, "{measured:?}");
    Ok(())
}
