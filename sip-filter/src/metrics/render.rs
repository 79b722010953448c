//! From numbers to text. Pure: the same snapshot gives the same text.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector};
use sip_filter_common::{
    abi::{Counters, Family, counter_index},
    sip::Class,
    verdict::{Action, Reason},
};

use super::{Interface, Snapshot};
use crate::{dataplane::XdpMode, detect::Rule};

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
pub(super) mod tests {
    use sip_filter_common::abi;

    use super::*;
    use crate::{
        detect::EngineStats,
        metrics::{Bans, BansAdded, TableUse},
    };

    fn counters() -> Counters {
        Counters {
            by_reason: [0; abi::COUNTER_WORDS],
            by_class: [0; Class::COUNT],
            events_lost: 0,
            events_suppressed: 0,
        }
    }

    /// A snapshot in which every number is different.
    pub(in crate::metrics) fn snapshot() -> Snapshot {
        let mut counters = counters();
        for (number, reason) in Reason::ALL.iter().enumerate() {
            for family in [Family::V4, Family::V6] {
                if makes_sense(*reason, family) {
                    let index = counter_index(*reason as u8, family, family == Family::V6);
                    counters.by_reason[index] = (number * 10 + family as usize) as u64;
                    counters.by_reason[index + 1] = (number * 1_000 + family as usize) as u64;
                }
            }
        }
        let not_ip = counter_index(Reason::PassNotIp as u8, Family::Other, false);
        counters.by_reason[not_ip] = 7;
        counters.by_reason[not_ip + 1] = 420;
        for (number, count) in counters.by_class.iter_mut().enumerate() {
            *count = number as u64 + 1;
        }
        counters.events_lost = 3;
        counters.events_suppressed = 4;
        let mut engine = EngineStats {
            observations: 1_000,
            sources: 12,
            max_sources: 100_000,
            sources_evicted: 5,
            offenders: 2,
            ..EngineStats::default()
        };
        engine.decisions[Rule::FloodInvite as usize] = [8, 9];
        Snapshot {
            version: "1.2.3",
            simulate: true,
            reload_successful: true,
            interfaces: vec![Interface {
                name: "eth0".to_owned(),
                attached: Some(XdpMode::Generic),
                counters: Box::new(counters),
                tables: vec![TableUse {
                    name: "ban4",
                    entries: 17,
                    max_entries: 1_000_000,
                }],
            }],
            bans: vec![Bans {
                origin: "manual",
                scope: "sip",
                family: Family::V6,
                count: 6,
            }],
            bans_added: vec![
                BansAdded {
                    origin: "detector",
                    rule: Some(Rule::FloodRegister),
                    count: 11,
                },
                BansAdded {
                    origin: "manual",
                    rule: None,
                    count: 13,
                },
            ],
            bans_removed: vec![("expired", 14)],
            engine,
            thresholds: Rule::ALL.map(|rule| (rule, rule as u64 + 500)).to_vec(),
        }
    }

    #[test]
    fn text() {
        insta::assert_snapshot!(render(&snapshot()).unwrap());
    }

    #[test]
    fn every_metric_is_documented() {
        let page = include_str!("../../../docs/metrics.md");
        let text = render(&snapshot()).unwrap();
        let names = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let missing: Vec<_> = names
            .filter(|name| !page.contains(&format!("`{name}`")))
            .collect();
        assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
    }

    /// Sum of all samples whose line begins so.
    fn sum(text: &str, begin: &str) -> u64 {
        text.lines()
            .filter(|line| line.starts_with(begin))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    #[test]
    fn every_packet_is_in_exactly_one_sum() {
        let text = render(&snapshot()).unwrap();
        for unit in ["packets", "bytes"] {
            let of = |what: &str| sum(&text, &format!("sip_filter_{what}_{unit}_total{{"));
            assert!(of("processed") > 0);
            assert_eq!(
                of("processed"),
                of("passed") + of("dropped") + of("would_drop"),
                "{unit}"
            );
        }
    }

    #[test]
    fn nothing_to_tell_is_told_all_the_same() {
        let empty = Snapshot {
            version: "0",
            simulate: false,
            reload_successful: false,
            interfaces: Vec::new(),
            bans: Vec::new(),
            bans_added: Vec::new(),
            bans_removed: Vec::new(),
            engine: EngineStats::default(),
            thresholds: Vec::new(),
        };
        let text = render(&empty).unwrap();
        assert!(
            text.contains("sip_filter_config_last_reload_successful 0\n"),
            "{text}"
        );
    }

    #[test]
    fn series_exist_before_their_first_packet() {
        let mut snapshot = snapshot();
        *snapshot.interfaces[0].counters = counters();
        let text = render(&snapshot).unwrap();
        let line = "sip_filter_dropped_packets_total{interface=\"eth0\",ip_type=\"ipv4\",reason=\"drop-ban-address\"} 0";
        assert!(text.contains(line), "{text}");
    }
}
