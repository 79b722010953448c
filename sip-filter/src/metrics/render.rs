//! From numbers to text. Pure: the same snapshot gives the same text.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector};
use sip_filter_common::{
    abi::{Counters, Family, counter_index},
    sip::Class,
    verdict::{Action, Reason},
};

use super::{Interface, Snapshot};
use crate::{
    dataplane::{Egress, XdpMode},
    detect::Rule,
};

/// Content type of the text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The text could not be made: two metrics got in each other's way, which is a bug.
#[derive(Debug, thiserror::Error)]
#[error("cannot render the metrics; this is a bug in sip-filter")]
pub struct RenderError(#[from] prometheus::Error);

/// Renders a snapshot in Prometheus' text format.
///
/// # Errors
/// [`RenderError`]; it would be a bug.
pub fn render(snapshot: &Snapshot) -> Result<String, RenderError> {
    let mut page = Page::default();
    packets(&mut page, &snapshot.interfaces)?;
    interfaces(&mut page, &snapshot.interfaces)?;
    bans(&mut page, snapshot)?;
    detection(&mut page, snapshot)?;
    known(&mut page, snapshot)?;
    conditions(&mut page, snapshot)?;
    alarms(&mut page, snapshot)?;
    program(&mut page, snapshot)?;
    Ok(TextEncoder::new().encode_to_string(&page.registry.gather())?)
}

/// A registry of its own for each text: values come from the kernel and the ban list, nothing is counted here.
#[derive(Default)]
struct Page {
    registry: Registry,
}

impl Page {
    fn counter(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, RenderError> {
        let vector = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.register(vector)
    }

    fn gauge(&mut self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, RenderError> {
        let vector = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.register(vector)
    }

    fn register<C: Collector + Clone + 'static>(&mut self, collector: C) -> Result<C, RenderError> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

fn add(vector: &IntCounterVec, labels: &[&str], value: u64) -> Result<(), RenderError> {
    vector.get_metric_with_label_values(labels)?.inc_by(value);
    Ok(())
}

fn set(vector: &IntGaugeVec, labels: &[&str], value: u64) -> Result<(), RenderError> {
    vector
        .get_metric_with_label_values(labels)?
        .set(i64::try_from(value).unwrap_or(i64::MAX));
    Ok(())
}

/// A pair of counters, packets and bytes, with the same labels.
struct PacketsAndBytes {
    packets: IntCounterVec,
    bytes: IntCounterVec,
}

impl PacketsAndBytes {
    fn new(page: &mut Page, what: &str, help: &str, labels: &[&str]) -> Result<Self, RenderError> {
        Ok(Self {
            packets: page.counter(
                &format!("sip_filter_{what}_packets_total"),
                &format!("Packets {help}"),
                labels,
            )?,
            bytes: page.counter(
                &format!("sip_filter_{what}_bytes_total"),
                &format!("Bytes of packets {help}"),
                labels,
            )?,
        })
    }

    fn add(&self, labels: &[&str], (packets, bytes): (u64, u64)) -> Result<(), RenderError> {
        add(&self.packets, labels, packets)?;
        add(&self.bytes, labels, bytes)
    }
}

/// processed = passed + dropped + would-drop, exactly.
fn packets(page: &mut Page, interfaces: &[Interface]) -> Result<(), RenderError> {
    let by_reason = ["interface", "ip_type", "reason"];
    let processed = PacketsAndBytes::new(
        page,
        "processed",
        "received on a filtered interface.",
        &["interface", "ip_type"],
    )?;
    let passed = PacketsAndBytes::new(
        page,
        "passed",
        "handed to the network stack, by reason.",
        &by_reason,
    )?;
    let dropped = PacketsAndBytes::new(page, "dropped", "dropped, by reason.", &by_reason)?;
    let would_drop = PacketsAndBytes::new(
        page,
        "would_drop",
        "passed only because the filter simulates, by reason.",
        &by_reason,
    )?;
    for interface in interfaces {
        let name = interface.name.as_str();
        for family in Family::ALL {
            let mut sum = (0, 0);
            for reason in Reason::ALL.iter().copied() {
                let enforced = counted(&interface.counters, reason, family, false);
                let simulated = counted(&interface.counters, reason, family, true);
                sum.0 += enforced.0 + simulated.0;
                sum.1 += enforced.1 + simulated.1;
                if !makes_sense(reason, family) && enforced.0 + simulated.0 == 0 {
                    continue;
                }
                let labels = [name, family.name(), reason.name()];
                match reason.action() {
                    Action::Drop => {
                        dropped.add(&labels, enforced)?;
                        would_drop.add(&labels, simulated)?;
                    }
                    Action::Pass => {
                        passed.add(&labels, (enforced.0 + simulated.0, enforced.1 + simulated.1))?
                    }
                }
            }
            processed.add(&[name, family.name()], sum)?;
        }
    }
    Ok(())
}

fn counted(counters: &Counters, reason: Reason, family: Family, simulated: bool) -> (u64, u64) {
    let index = counter_index(reason as u8, family, simulated);
    let word = |index: usize| counters.by_reason.get(index).copied().unwrap_or(0);
    (word(index), word(index + 1))
}

/// Whether a reason can occur with a family: such series are published as zero from the start, so that a rate over
/// them sees the first packet.
fn makes_sense(reason: Reason, family: Family) -> bool {
    match reason {
        Reason::PassNotIp => matches!(family, Family::Other),
        Reason::PassTruncated | Reason::PassTooDeep | Reason::PassMapError => true,
        _ => !matches!(family, Family::Other),
    }
}

fn interfaces(page: &mut Page, interfaces: &[Interface]) -> Result<(), RenderError> {
    let requests = page.counter(
        "sip_filter_sip_requests_total",
        "SIP requests to protected ports by method, admitted or over their limit; not those that a ban stopped.",
        &["interface", "method"],
    )?;
    let payloads = page.counter(
        "sip_filter_other_payloads_total",
        "Payloads to protected ports that are no SIP request, admitted or over their limit; not those that a ban stopped.",
        &["interface", "class"],
    )?;
    let lost = page.counter(
        "sip_filter_events_lost_total",
        "Events for detection that found the ring buffer full.",
        &["interface"],
    )?;
    let suppressed = page.counter(
        "sip_filter_events_suppressed_total",
        "Events for detection not sent because of the limit on events; their packets count in later events.",
        &["interface"],
    )?;
    let attached = page.gauge(
        "sip_filter_xdp_attached",
        "1 if the program is attached to the interface in this mode.",
        &["interface", "mode"],
    )?;
    let egress = page.gauge(
        "sip_filter_egress_attached",
        "1 if responses that leave the interface are seen in this way; 0 for all if they are not seen.",
        &["interface", "mode"],
    )?;
    let entries = page.gauge(
        "sip_filter_bpf_map_entries",
        "Entries in a kernel table.",
        &["interface", "map"],
    )?;
    let max_entries = page.gauge(
        "sip_filter_bpf_map_max_entries",
        "Room for entries in a kernel table.",
        &["interface", "map"],
    )?;
    for interface in interfaces {
        let name = interface.name.as_str();
        for class in Class::ALL {
            let vector = if class.is_request() { &requests } else { &payloads };
            add(
                vector,
                &[name, class.name()],
                interface.counters.by_class[class as usize],
            )?;
        }
        add(&lost, &[name], interface.counters.events_lost)?;
        add(&suppressed, &[name], interface.counters.events_suppressed)?;
        for (mode, label) in [(XdpMode::Native, "native"), (XdpMode::Generic, "generic")] {
            set(
                &attached,
                &[name, label],
                u64::from(interface.attached == Some(mode)),
            )?;
        }
        for (mode, label) in [(Egress::Tcx, "tcx"), (Egress::Clsact, "clsact")] {
            set(&egress, &[name, label], u64::from(interface.egress == mode))?;
        }
        for table in &interface.tables {
            set(&entries, &[name, table.name], table.entries)?;
            set(&max_entries, &[name, table.name], table.max_entries)?;
        }
    }
    Ok(())
}

fn bans(page: &mut Page, snapshot: &Snapshot) -> Result<(), RenderError> {
    let bans = page.gauge(
        "sip_filter_bans",
        "Bans in force.",
        &["origin", "scope", "ip_type"],
    )?;
    for kind in &snapshot.bans {
        set(&bans, &[kind.origin, kind.scope, kind.family.name()], kind.count)?;
    }
    let added = page.counter(
        "sip_filter_bans_added_total",
        "Bans added since the start, by the rule that decided if one did.",
        &["origin", "rule"],
    )?;
    // What has not happened yet is there as zero: else a rate would miss the first time.
    for origin in ["manual", "import"] {
        add(&added, &[origin, ""], 0)?;
    }
    for rule in Rule::ALL {
        add(&added, &["detector", rule.name()], 0)?;
    }
    for kind in &snapshot.bans_added {
        add(
            &added,
            &[kind.origin, kind.rule.map_or("", Rule::name)],
            kind.count,
        )?;
    }
    let removed = page.counter(
        "sip_filter_bans_removed_total",
        "Bans ended since the start, by cause.",
        &["cause"],
    )?;
    for cause in ["expired", "unbanned", "replaced"] {
        add(&removed, &[cause], 0)?;
    }
    for (cause, count) in &snapshot.bans_removed {
        add(&removed, &[*cause], *count)?;
    }
    Ok(())
}

fn detection(page: &mut Page, snapshot: &Snapshot) -> Result<(), RenderError> {
    let detections = page.counter(
        "sip_filter_detections_total",
        "Decisions of the detection rules since the start.",
        &["rule", "mode"],
    )?;
    let engine = &snapshot.engine;
    for (rule, [enforced, shadow]) in Rule::ALL.into_iter().zip(engine.decisions) {
        add(&detections, &[rule.name(), "enforce"], enforced)?;
        add(&detections, &[rule.name(), "shadow"], shadow)?;
    }
    let threshold = page.gauge(
        "sip_filter_config_threshold",
        "Packets within the rule's window that make an offence.",
        &["rule"],
    )?;
    for (rule, value) in &snapshot.thresholds {
        set(&threshold, &[rule.name()], *value)?;
    }
    for (name, help, value) in [
        (
            "sip_filter_detector_sources",
            "Sources the detection rules are counting.",
            engine.sources,
        ),
        (
            "sip_filter_detector_max_sources",
            "Room for sources in the detection rules (`detect.max_sources`).",
            engine.max_sources,
        ),
        (
            "sip_filter_detector_offenders",
            "Sources whose earlier offences are remembered.",
            engine.offenders,
        ),
    ] {
        set(&page.gauge(name, help, &[])?, &[], value as u64)?;
    }
    for (name, help, value) in [
        (
            "sip_filter_detector_sources_evicted_total",
            "Sources that were forgotten to make room for others.",
            engine.sources_evicted,
        ),
        (
            "sip_filter_detector_observations_total",
            "Events the detection rules have looked at.",
            engine.observations,
        ),
    ] {
        add(&page.counter(name, help, &[])?, &[], value)?;
    }
    Ok(())
}

/// What rules decided and did not enforce, and who is known.
fn known(page: &mut Page, snapshot: &Snapshot) -> Result<(), RenderError> {
    for (name, help, counts) in [
        (
            "sip_filter_would_ban_total",
            "Bans decided and not enforced since the start: of shadow rules, and all while the filter simulates.",
            &snapshot.would_ban,
        ),
        (
            "sip_filter_alarms_total",
            "Alarms of the detection rules since the start.",
            &snapshot.alarms,
        ),
    ] {
        let counter = page.counter(name, help, &["rule"])?;
        for (rule, count) in counts {
            add(&counter, &[rule.name()], *count)?;
        }
    }
    for (name, help, value) in [
        (
            "sip_filter_trusted_sources",
            "Sources with a registration in force.",
            snapshot.trusted,
        ),
        (
            "sip_filter_trusted_endpoints",
            "Endpoints from which trusted sources registered.",
            snapshot.endpoints,
        ),
        (
            "sip_filter_proven_sources",
            "Sources that have proven to own their address.",
            snapshot.proven,
        ),
    ] {
        set(&page.gauge(name, help, &[])?, &[], value)?;
    }
    let refused = page.counter(
        "sip_filter_trust_refused_total",
        "Times the kernel did not take a trusted source or endpoint, which then has the limits of a stranger.",
        &[],
    )?;
    add(&refused, &[], snapshot.trust_refused)
}

/// Kinds that are not there are published as zero: an alert sees them come.
fn conditions(page: &mut Page, snapshot: &Snapshot) -> Result<(), RenderError> {
    let current = page.gauge(
        "sip_filter_condition",
        "Number of subjects (interfaces, tables) of which a condition is true now; see `sip-filter health`.",
        &["name", "severity"],
    )?;
    let raised = page.counter(
        "sip_filter_conditions_raised_total",
        "Times a condition became true since the start.",
        &["name"],
    )?;
    let [asked, passed] = snapshot.self_tests;
    let tests = page.counter(
        "sip_filter_self_tests_total",
        "Bans asked of the kernel after they were made.",
        &[],
    )?;
    add(&tests, &[], asked)?;
    let failures = page.counter(
        "sip_filter_self_test_failures_total",
        "Times a source that is banned was found to pass.",
        &[],
    )?;
    add(&failures, &[], passed)?;
    let drift = page.counter(
        "sip_filter_drift_entries_total",
        "Entries by which the kernel tables and the ban list differed; they were repaired.",
        &["interface"],
    )?;
    for (interface, entries) in &snapshot.drift {
        add(&drift, &[interface], *entries)?;
    }
    for count in &snapshot.conditions {
        let kind = count.kind;
        set(&current, &[kind.name(), kind.severity().name()], count.current)?;
        add(&raised, &[kind.name()], count.raised)?;
    }
    Ok(())
}

fn alarms(page: &mut Page, snapshot: &Snapshot) -> Result<(), RenderError> {
    let deliveries = page.counter(
        "sip_filter_alarm_deliveries_total",
        "Alarms that a receiver took or refused for good, and attempts to deliver that failed and are made again.",
        &["receiver", "result"],
    )?;
    let waiting = page.gauge(
        "sip_filter_alarms_waiting",
        "Alarms that a receiver has not been told yet.",
        &["receiver"],
    )?;
    for (receiver, count) in &snapshot.receivers {
        add(&deliveries, &[receiver, "delivered"], count.delivered)?;
        add(&deliveries, &[receiver, "failed"], count.failed)?;
        add(&deliveries, &[receiver, "refused"], count.refused)?;
        set(&waiting, &[receiver], count.waiting)?;
    }
    Ok(())
}

fn program(page: &mut Page, snapshot: &Snapshot) -> Result<(), RenderError> {
    let info = page.gauge(
        "sip_filter_build_info",
        "Always 1; the version is in the label.",
        &["version"],
    )?;
    set(&info, &[snapshot.version], 1)?;
    for (name, help, value) in [
        (
            "sip_filter_simulate",
            "1 if the filter decides and counts, but drops nothing.",
            snapshot.simulate,
        ),
        (
            "sip_filter_config_last_reload_successful",
            "1 if the configuration was accepted when it was last read.",
            snapshot.reload_successful,
        ),
    ] {
        set(&page.gauge(name, help, &[])?, &[], u64::from(value))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "render_tests.rs"]
pub(super) mod tests;
