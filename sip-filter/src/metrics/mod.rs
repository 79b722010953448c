//! Numbers for Prometheus: one text, served over HTTP or written for node_exporter's textfile collector.
//!
//! The names are part of the interface (documented in docs/metrics.md and checked by tests). The text is the
//! exposition format 0.0.4 and not OpenMetrics, because node_exporter's textfile collector reads only the former;
//! it carries no timestamps, because a file with one is refused whole.

#[cfg(test)]
mod mixin_tests;
#[cfg(test)]
mod node_exporter_tests;
mod render;
mod server;
mod textfile;

use sip_filter_common::abi::Family;

pub use self::{
    render::{CONTENT_TYPE, RenderError, render},
    server::{Server, ServerError},
    textfile::{FILE_NAME, Textfile, TextfileError},
};
use crate::{
    alarms::Delivered,
    conditions::Kind,
    dataplane::{Counters, Egress, XdpMode},
    detect::{EngineStats, Rule},
};

/// Everything that is published, at one moment.
///
/// Labels are static strings wherever they can be: an address in a label would make a new time series for every
/// attacker, and here it cannot even be written by mistake.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Version of the program.
    pub version: &'static str,
    /// Whether the filter only pretends to drop.
    pub simulate: bool,
    /// Whether the configuration could be read the last time it was asked for.
    pub reload_successful: bool,
    /// Conditions raised now and since the start, by kind.
    pub conditions: Vec<ConditionCount>,
    /// What became of the alarms, by receiver.
    pub receivers: Vec<(&'static str, Delivered)>,
    /// Bans asked of the kernel after they were made, and how often a source passed that should not.
    pub self_tests: [u64; 2],
    /// Entries by which kernel tables and ban list differed, by interface.
    pub drift: Vec<(String, u64)>,
    /// Interfaces that are filtered, or should be.
    pub interfaces: Vec<Interface>,
    /// Bans in force.
    pub bans: Vec<Bans>,
    /// Bans added so far.
    pub bans_added: Vec<BansAdded>,
    /// Bans ended so far, by cause: a stable name (`expired`, `unbanned`, …).
    pub bans_removed: Vec<(&'static str, u64)>,
    /// Bans decided and not enforced so far, by rule.
    pub would_ban: Vec<(Rule, u64)>,
    /// Alarms so far, by rule.
    pub alarms: Vec<(Rule, u64)>,
    /// Sources with a registration in force.
    pub trusted: u64,
    /// Endpoints from which they registered.
    pub endpoints: u64,
    /// Sources that have proven to own their address.
    pub proven: u64,
    /// Times the kernel did not take a trusted source.
    pub trust_refused: u64,
    /// The detection engine.
    pub engine: EngineStats,
    /// Thresholds in force.
    pub thresholds: Vec<(Rule, u64)>,
}

/// Conditions of one kind.
#[derive(Clone, Copy, Debug)]
pub struct ConditionCount {
    /// Which.
    pub kind: Kind,
    /// Subjects of which it is true now.
    pub current: u64,
    /// Times it was raised since the start.
    pub raised: u64,
}

/// One interface.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// How the program is attached, if it is.
    pub attached: Option<XdpMode>,
    /// Why it is not, if that is known.
    pub problem: Option<String>,
    /// Where responses on their way out are seen.
    pub egress: Egress,
    /// Counters of its data plane.
    pub counters: Counters,
    /// How full its tables are.
    pub tables: Vec<TableUse>,
}

/// How full a table is.
#[derive(Clone, Copy, Debug)]
pub struct TableUse {
    /// Name of the table.
    pub name: &'static str,
    /// Entries in it.
    pub entries: u64,
    /// Room for entries.
    pub max_entries: u64,
}

/// Number of bans of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Bans {
    /// Who made them, such as `manual`.
    pub origin: &'static str,
    /// What they stop, `sip` or `all`.
    pub scope: &'static str,
    /// Their family.
    pub family: Family,
    /// How many.
    pub count: u64,
}

/// Bans added so far by one origin and rule.
#[derive(Clone, Copy, Debug)]
pub struct BansAdded {
    /// Who made them.
    pub origin: &'static str,
    /// The rule that decided; none for bans by hand.
    pub rule: Option<Rule>,
    /// How many.
    pub count: u64,
}
