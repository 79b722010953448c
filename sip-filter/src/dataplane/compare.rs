//! Are host and kernel in the same state? What the pipeline leaves behind, word for word: a difference shows here at
//! once, and not only when a later packet happens to depend on it.

use std::sync::atomic::Ordering;

use sip_filter_common::{
    abi::{Counters, Family, counter_index},
    pipeline::Budget,
    sip::Class,
    table::HostLine,
    verdict::Reason,
};

use super::{
    DataplaneError, HostPlane, LoadedProgram, counters,
    memory::Words,
    program::{PodLocal, map_data, map_words},
};

/// The tables that packets change, by the names of their maps.
pub(super) const CHANGED: [&str; 7] = [
    "BAN4",
    "BAN6",
    "BAN6_HOST",
    "SOURCES",
    "UNKNOWN",
    "NETS4",
    "NETS6",
];

/// Compares a loaded program with a data plane on the host that was given the same.
pub struct Comparison {
    kernel: Vec<Words>,
}

/// What a data plane keeps for each CPU. Tests stay on one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OfCpu {
    pub(super) budgets: [Budget; 3],
    pub(super) shares: [u32; Class::COUNT],
    pub(super) random: u64,
}

impl Comparison {
    /// Maps the tables of a program.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(kernel: &LoadedProgram) -> Result<Self, DataplaneError> {
        let map = |name: &'static str| {
            let entries = map_data(&kernel.ebpf, name)?
                .info()
                .map_err(DataplaneError::map)?
                .max_entries();
            map_words(&kernel.ebpf, name, entries as usize * size_of::<HostLine>())
        };
        let kernel = CHANGED.into_iter().map(map).collect::<Result<_, _>>()?;
        Ok(Self { kernel })
    }

    /// The first difference in counters, tables and what a CPU keeps, in words; `None` if there is none.
    ///
    /// # Errors
    /// If the kernel does not tell its counters.
    pub fn difference(
        &self,
        host: &HostPlane,
        kernel: &LoadedProgram,
    ) -> Result<Option<String>, DataplaneError> {
        let values = kernel.local.get(&0, 0).map_err(DataplaneError::map)?;
        let mut counted = counters::zero();
        let mut of_cpu = OfCpu {
            budgets: [Budget::default(); 3],
            shares: [0; Class::COUNT],
            random: 0,
        };
        for PodLocal(local) in values.iter() {
            counters::add(&mut counted, &local.counters);
            // Only one CPU ran the program.
            if local.counters.by_reason.iter().any(|count| *count > 0) || local.budgets[1].window > 0 {
                of_cpu = OfCpu {
                    budgets: local.budgets,
                    shares: local.shares,
                    random: local.random,
                };
            }
        }
        Ok(different_counters(&host.counters(), &counted)
            .or_else(|| self.different_word(host))
            .or_else(|| {
                let own = host.of_cpu();
                (own != of_cpu).then(|| format!("a CPU's own: host {own:?}, kernel {of_cpu:?}"))
            }))
    }

    fn different_word(&self, host: &HostPlane) -> Option<String> {
        let tables = CHANGED.iter().zip(host.changed()).zip(&self.kernel);
        for ((name, host), kernel) in tables {
            let (host, kernel) = (host.lines(), kernel.lines());
            if bytes(host) == bytes(kernel) {
                continue;
            }
            let words = |line: &HostLine| line.each_ref().map(|word| word.load(Ordering::Relaxed));
            for (bucket, (host, kernel)) in host.iter().zip(kernel).enumerate() {
                let (host, kernel) = (words(host), words(kernel));
                if host != kernel {
                    return Some(format!(
                        "{name}, bucket {bucket}: host {host:x?}, kernel {kernel:x?}"
                    ));
                }
            }
            return Some(format!(
                "{name}: host {} buckets, kernel {}",
                host.len(),
                kernel.len()
            ));
        }
        None
    }
}

/// All of a table at once, which is compared in no time.
fn bytes(lines: &[HostLine]) -> &[u8] {
    // SAFETY: any memory may be looked at as bytes. Nobody writes to it now: the program only runs for the thread that
    // compares, between whose packets we are.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast::<u8>(), size_of_val(lines)) }
}

/// Counters that differ, by name.
fn different_counters(host: &Counters, kernel: &Counters) -> Option<String> {
    if host == kernel {
        return None;
    }
    let mut found = Vec::new();
    for reason in Reason::ALL {
        for (family, simulated) in Family::ALL
            .into_iter()
            .flat_map(|family| [(family, false), (family, true)])
        {
            let index = counter_index(*reason as u8, family, simulated);
            let of = |counters: &Counters| [counters.by_reason[index], counters.by_reason[index + 1]];
            if of(host) != of(kernel) {
                let mode = if simulated { " (simulated)" } else { "" };
                found.push(format!(
                    "{} {}{mode}: packets and bytes on the host {:?}, in the kernel {:?}",
                    reason.name(),
                    family.name(),
                    of(host),
                    of(kernel)
                ));
            }
        }
    }
    let rest = |counters: &Counters| {
        (
            counters.by_class,
            counters.events_lost,
            counters.events_suppressed,
        )
    };
    if rest(host) != rest(kernel) {
        found.push(format!(
            "classes, events lost and suppressed: host {:?}, kernel {:?}",
            rest(host),
            rest(kernel)
        ));
    }
    Some(format!("counters: {}", found.join("; ")))
}
