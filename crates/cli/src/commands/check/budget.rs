//! Where the fleet's write budget comes from: for people, and as JSON. **Pure.**

use serde_json::json;
use sluicegate_sink::store::TableCapacity;
use sluicegate_worker::{BudgetChoice, BudgetSource};

/// What the table was asked and said of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// It was not asked.
    NotAsked,
    /// It said this, or nothing.
    Said(Option<TableCapacity>),
}

/// The budget as JSON: where it comes from, how much it is as far as is known, and whether it is never exceeded.
pub(super) fn as_json(choice: BudgetChoice, asked: Asked) -> serde_json::Value {
    let (source, units) = known(choice, asked);
    let source = source.map_or("table", BudgetSource::as_str);
    let firm = known(choice, asked).0.map(BudgetSource::is_firm);
    json!({ "source": source, "units_per_second": units, "firm": firm })
}

/// The budget in a sentence.
pub(super) fn told(choice: BudgetChoice, asked: Asked) -> String {
    let (source, units) = known(choice, asked);
    let units = units.unwrap_or_default();
    match source {
        None => "The write budget is what the table says of itself, read again every 10 s; --preflight asks it now.".to_owned(),
        Some(BudgetSource::None) => {
            "There is no write budget: the fleet writes what the table does not refuse.".to_owned()
        }
        Some(BudgetSource::Setting) => {
            format!("The write budget is {units} write units a second, as set. The fleet never exceeds it.")
        }
        Some(BudgetSource::Provisioned) => format!(
            "The write budget is {units} write units a second, the table's provisioned capacity, and follows it. The fleet never exceeds it."
        ),
        Some(BudgetSource::OnDemandMaximum) => format!(
            "The write budget is {units} write units a second, the maximum set for the table on demand, and follows it. The fleet never exceeds it."
        ),
        Some(BudgetSource::WarmThroughput) => format!(
            "The write budget is {units} write units a second, the warm throughput of the table on demand. Writing begins there, and goes beyond it where the table takes more."
        ),
        Some(BudgetSource::Untold) => {
            "There is no write budget: the table does not say what it gives. Set write_budget_wcu to what it has.".to_owned()
        }
    }
}

/// The source, if it is known, and the units.
fn known(choice: BudgetChoice, asked: Asked) -> (Option<BudgetSource>, Option<u64>) {
    let fixed = choice.fixed().map(|budget| budget.total_milli / 1_000);
    match (choice, asked) {
        (BudgetChoice::None | BudgetChoice::Fixed(_), _) => (Some(choice.source()), fixed),
        (BudgetChoice::Auto, Asked::NotAsked) => (None, None),
        (BudgetChoice::Auto, Asked::Said(capacity)) => {
            (Some(BudgetSource::of_table(capacity)), capacity.map(|capacity| capacity.units))
        }
    }
}

#[cfg(test)]
mod tests {
    use sluicegate_lease::WriteBudget;
    use sluicegate_sink::store::CapacityKind;

    use super::*;

    #[test]
    fn each_source_is_told_with_what_is_known_of_it() {
        let said = |units, kind| Asked::Said(Some(TableCapacity { units, kind }));
        let cases = [
            (BudgetChoice::None, Asked::NotAsked, "There is no write budget", json!("none"), json!(null)),
            (
                BudgetChoice::Fixed(WriteBudget::of_units(700)),
                Asked::Said(None),
                "700 write units a second, as set",
                json!("setting"),
                json!(true),
            ),
            (BudgetChoice::Auto, Asked::NotAsked, "--preflight asks it now", json!("table"), json!(null)),
            (BudgetChoice::Auto, Asked::Said(None), "does not say", json!("untold"), json!(false)),
            (
                BudgetChoice::Auto,
                said(1_500, CapacityKind::Provisioned),
                "1500 write units a second, the table's provisioned",
                json!("provisioned"),
                json!(true),
            ),
            (
                BudgetChoice::Auto,
                said(900, CapacityKind::OnDemandMaximum),
                "900 write units a second, the maximum",
                json!("on_demand_maximum"),
                json!(true),
            ),
            (
                BudgetChoice::Auto,
                said(4_000, CapacityKind::WarmThroughput),
                "goes beyond it",
                json!("warm_throughput"),
                json!(false),
            ),
        ];
        for (choice, asked, text, source, firm) in cases {
            let (sentence, machine) = (told(choice, asked), as_json(choice, asked));
            assert!(sentence.contains(text), "{sentence}");
            assert_eq!(machine["source"], source);
            if choice != BudgetChoice::None {
                assert_eq!(machine["firm"], firm, "{sentence}");
            }
        }
    }
}
