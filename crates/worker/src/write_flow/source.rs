//! Where the fleet's write budget comes from.

use sluicegate_lease::WriteBudget;
use sluicegate_sink::store::{CapacityKind, TableCapacity};

/// What the whole fleet may write to the table, as it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetChoice {
    /// As much as the table takes: it is found out by being refused.
    None,
    /// This much.
    Fixed(WriteBudget),
    /// What the table says that it gives.
    Auto,
}

impl BudgetChoice {
    /// The budget that was set, if one was.
    pub fn fixed(self) -> Option<WriteBudget> {
        match self {
            Self::Fixed(budget) => Some(budget),
            Self::None | Self::Auto => None,
        }
    }

    /// Where the budget comes from before a table was asked.
    pub fn source(self) -> BudgetSource {
        match self {
            Self::None => BudgetSource::None,
            Self::Fixed(_) => BudgetSource::Setting,
            Self::Auto => BudgetSource::Untold,
        }
    }
}

/// Where the budget comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetSource {
    /// There is none, and there should be none.
    None,
    /// The setting.
    Setting,
    /// The table's provisioned capacity.
    Provisioned,
    /// The maximum of a table on demand.
    OnDemandMaximum,
    /// What a table on demand takes at once. It may come to take more, so it is where writing begins.
    WarmThroughput,
    /// The table should say it, and did not, or may not be asked: there is none.
    Untold,
}

impl BudgetSource {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Setting,
        Self::Provisioned,
        Self::OnDemandMaximum,
        Self::WarmThroughput,
        Self::Untold,
    ];

    /// What a table said.
    pub fn of_table(capacity: Option<TableCapacity>) -> Self {
        match capacity.map(|capacity| capacity.kind) {
            None => Self::Untold,
            Some(CapacityKind::Provisioned) => Self::Provisioned,
            Some(CapacityKind::OnDemandMaximum) => Self::OnDemandMaximum,
            Some(CapacityKind::WarmThroughput) => Self::WarmThroughput,
        }
    }

    /// Whether the fleet writes no more than this.
    pub fn is_firm(self) -> bool {
        match self {
            Self::Setting | Self::Provisioned | Self::OnDemandMaximum => true,
            Self::None | Self::WarmThroughput | Self::Untold => false,
        }
    }

    /// The word for it, in metrics, on the page and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Setting => "setting",
            Self::Provisioned => "provisioned",
            Self::OnDemandMaximum => "on_demand_maximum",
            Self::WarmThroughput => "warm_throughput",
            Self::Untold => "untold",
        }
    }
}
