//! What is published to monitoring and shown by `status`.

use std::collections::BTreeMap;

use sip_filter_common::{
    abi::{self, Family, counter_index},
    sip::Class,
    verdict::Reason,
};

use super::detector::SharedEngine;
use crate::{
    alarms::Counts,
    bans::{EndedBy, Origin, Scope},
    daemon::{ControlHandle, Controller, chain},
    dataplane::{Egress, no_counters},
    detect::Rule,
    metrics::{Bans, BansAdded, ConditionCount, Interface, Snapshot, TableUse},
};

/// Where the numbers come from. All clones have the same ones.
#[derive(Clone)]
pub(super) struct Numbers {
    pub(super) handle: ControlHandle,
    pub(super) engine: SharedEngine,
    pub(super) alarms: Counts,
}

impl Numbers {
    /// Everything that is published, now. Blocks for the controller's lock.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.handle.with(|controller, _| of_controller(controller));
        snapshot.reload_successful = self.handle.last_reload_succeeded();
        snapshot.engine = self.engine.stats();
        snapshot.receivers = self.alarms.get();
        snapshot
    }
}

fn of_controller(controller: &mut Controller) -> Snapshot {
    let config = controller.config();
    let thresholds = Rule::ALL
        .map(|rule| (rule, config.detect.settings(rule).threshold))
        .to_vec();
    let simulate = config.simulate;
    let bans = controller
        .counts()
        .into_iter()
        .map(|((origin, scope, family), count)| Bans {
            origin: origin_name(&origin),
            scope: match scope {
                Scope::Sip => "sip",
                Scope::All => "all",
            },
            family: if family == Family::V6.name() {
                Family::V6
            } else {
                Family::V4
            },
            count,
        });
    let totals = controller.totals();
    let added = totals.added.iter().map(|((origin, rule), count)| BansAdded {
        origin: origin_name(origin),
        rule: *rule,
        count: *count,
    });
    let of_rules = |counts: &BTreeMap<Rule, u64>| {
        Rule::ALL
            .map(|rule| (rule, counts.get(&rule).copied().unwrap_or(0)))
            .to_vec()
    };
    let (would_ban, alarms) = (of_rules(&totals.would_ban), of_rules(&totals.alarms));
    let trust_refused = totals.trust_refused;
    let (trusted, proven) = controller.known_counts();
    let endpoints = controller.endpoints() as u64;
    let removed = totals
        .ended
        .iter()
        .map(|(cause, count)| (ended_name(*cause), *count));
    Snapshot {
        version: env!("CARGO_PKG_VERSION"),
        simulate,
        reload_successful: true,
        receivers: Vec::new(),
        bans: bans.collect(),
        bans_added: added.collect(),
        bans_removed: removed.collect(),
        would_ban,
        alarms,
        trusted: trusted as u64,
        endpoints,
        proven: proven as u64,
        trust_refused,
        engine: crate::detect::EngineStats::default(),
        thresholds,
        conditions: conditions(controller),
        self_tests: [controller.verified().asked, controller.verified().passed],
        drift: drift(controller),
        interfaces: interfaces(controller),
    }
}

/// Of every interface, from the start: a rate over it sees the first entry.
fn drift(controller: &Controller) -> Vec<(String, u64)> {
    let mut drift = controller.verified().drift.clone();
    for plane in controller.planes() {
        drift.entry(plane.name().to_owned()).or_default();
    }
    drift.into_iter().collect()
}

fn conditions(controller: &mut Controller) -> Vec<ConditionCount> {
    let conditions = controller.conditions();
    let current = conditions.current();
    let count = |(kind, raised)| ConditionCount {
        kind,
        current: current.iter().filter(|condition| condition.name == kind).count() as u64,
        raised,
    };
    conditions.raised_total().into_iter().map(count).collect()
}

fn interfaces(controller: &mut Controller) -> Vec<Interface> {
    let mut interfaces = Vec::new();
    for plane in controller.planes_mut() {
        let counters = match plane.counters() {
            Ok(counters) => counters,
            Err(error) => {
                tracing::warn!(
                    interface = plane.name(),
                    error = chain(&error),
                    "cannot read the counters"
                );
                continue;
            }
        };
        let tables = plane.image().fill().into_iter().map(|table| TableUse {
            name: table.name,
            entries: table.entries as u64,
            max_entries: table.capacity as u64,
        });
        let tables = tables.collect();
        interfaces.push(Interface {
            name: plane.name().to_owned(),
            attached: plane.xdp_mode(),
            problem: None,
            egress: plane.egress(),
            counters,
            tables,
        });
    }
    for (name, problem, counters) in controller.absent() {
        interfaces.push(Interface {
            name,
            attached: None,
            problem: Some(problem),
            egress: Egress::None("the filter is not attached".to_owned()),
            counters: counters.cloned().unwrap_or_else(no_counters),
            tables: Vec::new(),
        });
    }
    interfaces
}

const fn origin_name(origin: &Origin) -> &'static str {
    match origin {
        Origin::Manual => "manual",
        Origin::Import => "import",
        Origin::Detector => "detector",
    }
}

const fn ended_name(cause: EndedBy) -> &'static str {
    match cause {
        EndedBy::Expired => "expired",
        EndedBy::Unbanned => "unbanned",
        EndedBy::Replaced => "replaced",
    }
}

/// Packets by reason, those enforced or those simulated, summed over families. Reasons without packets are left out.
pub(super) fn by_reason(counters: &abi::Counters, simulated: bool) -> BTreeMap<String, u64> {
    let packets = |reason: Reason| -> u64 {
        let indices = Family::ALL.map(|family| counter_index(reason as u8, family, simulated));
        indices.iter().map(|index| counters.by_reason[*index]).sum()
    };
    Reason::ALL
        .iter()
        .map(|reason| (reason.name().to_owned(), packets(*reason)))
        .filter(|(_, packets)| *packets > 0)
        .collect()
}

/// Packets to protected ports by class.
pub(super) fn by_class(counters: &abi::Counters) -> BTreeMap<String, u64> {
    Class::ALL
        .iter()
        .map(|class| (class.name().to_owned(), counters.by_class[*class as usize]))
        .collect()
}
