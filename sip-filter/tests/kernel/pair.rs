//! Host and kernel side by side.

use std::{net::IpAddr, time::Duration};

use sip_filter::{
    bans::{Endpoint, Scope, Target},
    dataplane::{HostPlane, Image, KernelBan, LoadOptions, LoadedProgram, TableSizes},
};
use sip_filter_common::{
    abi::{Config, EventHeader, Limit, flags},
    sip::Class,
    verdict::{Action, Verdict},
};

/// What a program keeps for each CPU is that of one CPU then.
pub(crate) fn stay_on_this_cpu() {
    let mut cpus = nix::sched::CpuSet::new();
    cpus.set(nix::sched::sched_getcpu().unwrap()).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus).unwrap();
}

/// A configuration with room for tests: limits that a few packets reach.
pub(crate) fn config() -> Config {
    Config {
        seed: [0x5eed, 0xfeed],
        flags: 0,
        source_prefix6: 64,
        snapshot_bytes: 512,
        snapshots_per_source: 4,
        events_per_window: 64,
        responses_per_source: 4,
        drop_captures_per_window: 8,
        unknown_budget: [Limit::UNLIMITED; 8],
        fresh_budget: [Limit::UNLIMITED; 8],
        limits: std::array::from_fn(|index| match index {
            0..8 => Limit::new(10, 1_000_000_000, 5),
            _ => Limit::new(100, 1_000_000_000, 50),
        }),
    }
}

pub(crate) fn sizes() -> TableSizes {
    TableSizes {
        ban4: 5_000,
        ban6: 2_000,
        ban6_hosts: 500,
        networks: 1_000,
        sources: 4_096,
        trust: 1_000,
        endpoints: 1_000,
    }
}

/// The two data planes, given the same tables, packets and time.
pub(crate) struct Pair {
    host: HostPlane,
    host_image: Box<dyn Image>,
    kernel: LoadedProgram,
    kernel_image: Box<dyn Image>,
    config: Config,
}

impl Pair {
    /// Loads the program. Stays on one CPU from here on, as a flow does.
    pub(crate) fn new(config: &Config) -> Self {
        stay_on_this_cpu();
        let (udp_ports, tcp_ports) = (vec![5060], vec![5060, 5061]);
        let (host, host_image) = HostPlane::new(config, &sizes(), &udp_ports, &tcp_ports);
        let options = LoadOptions {
            sizes: sizes(),
            config: *config,
            udp_ports,
            tcp_ports,
            log: false,
            test_clock: true,
        };
        let (kernel, kernel_image) = LoadedProgram::load("test", &options).unwrap();
        Self {
            host,
            host_image,
            kernel,
            kernel_image,
            config: *config,
        }
    }

    pub(crate) fn ban(&mut self, target: &str, scope: Scope, expires: Option<Duration>) {
        let target = parse(target);
        for image in [&mut self.host_image, &mut self.kernel_image] {
            image.put(target, KernelBan { scope, expires }).unwrap();
        }
    }

    pub(crate) fn unban(&mut self, target: &str) {
        let target = parse(target);
        for image in [&mut self.host_image, &mut self.kernel_image] {
            image.remove(target).unwrap();
        }
    }

    pub(crate) fn allow(&mut self, networks: &[&str]) {
        let networks: Vec<_> = networks
            .iter()
            .map(|net| net.parse::<Target>().unwrap().net())
            .collect();
        for image in [&mut self.host_image, &mut self.kernel_image] {
            image.set_allowed(&networks).unwrap();
        }
    }

    /// Runs a frame through both at boot time `now` and checks that they agree on the verdict, every counter and every
    /// event. Returns the decision and the events. Frames shorter than an Ethernet header only run on the host: no
    /// driver hands them over.
    pub(crate) fn run(
        &mut self,
        name: &str,
        frame: &[u8],
        now: Duration,
    ) -> (Verdict, Vec<(EventHeader, Vec<u8>)>) {
        let now = u64::try_from(now.as_nanos()).unwrap();
        if frame.len() < 14 {
            let mut other = HostPlane::new(&config(), &sizes(), &[5060], &[5060]).0;
            return (other.run(frame, now), Vec::new());
        }
        let decision = self.host.run(frame, now);
        self.kernel.set_clock(now);
        let action = self.kernel.test_run(frame).unwrap();
        let expected = match decision.action() {
            Action::Drop => 1,
            Action::Pass => 2,
        };
        assert_eq!(action, expected, "{name}: host says {decision:?}");
        let (host, kernel) = (self.host.counters(), self.kernel.counters().unwrap());
        assert!(host == kernel, "{name}: counters differ after {decision:?}");
        let events = self.host.take_events();
        assert_eq!(
            events,
            self.kernel.take_events().unwrap(),
            "{name}: events differ"
        );
        (decision, events)
    }

    /// Packets the kernel has counted since a boot time and not told yet.
    pub(crate) fn untold(&self, source: IpAddr, class: Class, since: Duration) -> u64 {
        let counted_by = (self.config.seed, self.config.source_prefix6);
        self.kernel.untold((source, class), counted_by, since).unwrap()
    }

    /// Hits of every ban since the last call; both must have the same.
    pub(crate) fn hits(&mut self) -> Vec<(Target, u64)> {
        let [host, kernel] = [&mut self.host_image, &mut self.kernel_image].map(|image| {
            let mut hits = Vec::new();
            image.take_hits(&mut |target, count| hits.push((target, count)));
            hits.sort_unstable();
            hits
        });
        // Up to 31 both count exactly; above, the kernel's are brought to the exact sum, the host's stay estimates.
        let exact = |hits: &[(Target, u64)]| -> Vec<_> {
            hits.iter()
                .map(|(target, count)| (*target, (*count).min(32)))
                .collect()
        };
        assert_eq!(exact(&host), exact(&kernel));
        kernel
    }

    pub(crate) fn trust(&mut self, target: &str, until: Option<Duration>) {
        let target = parse(target);
        for image in [&mut self.host_image, &mut self.kernel_image] {
            image.set_trust(target, until).unwrap();
        }
    }

    pub(crate) fn at_home(&mut self, endpoint: Endpoint, until: Option<Duration>) {
        for image in [&mut self.host_image, &mut self.kernel_image] {
            image.set_endpoint(endpoint, until).unwrap();
        }
    }

    /// Shows both a frame that leaves, and checks that they report the same and let it go.
    pub(crate) fn leave(&mut self, name: &str, frame: &[u8], now: Duration) -> Vec<(EventHeader, Vec<u8>)> {
        let now = u64::try_from(now.as_nanos()).unwrap();
        self.host.run_egress(frame, now);
        self.kernel.set_clock(now);
        assert_eq!(
            self.kernel.test_run_egress(frame).unwrap(),
            -1,
            "{name}: egress only looks"
        );
        let events = self.host.take_events();
        assert_eq!(
            events,
            self.kernel.take_events().unwrap(),
            "{name}: egress events differ"
        );
        events
    }

    /// Packets counted in all, enforced and simulated.
    pub(crate) fn packets_counted(&self) -> u64 {
        self.kernel.counters().unwrap().by_reason.iter().step_by(2).sum()
    }
}

/// The same configuration in simulate mode.
pub(crate) fn simulating() -> Config {
    Config {
        flags: flags::SIMULATE,
        ..config()
    }
}

/// An address or a network; which address in it, does not matter.
fn parse(target: &str) -> Target {
    let network = target.parse().map(Target::network);
    network.unwrap_or_else(|_| target.parse().unwrap())
}
