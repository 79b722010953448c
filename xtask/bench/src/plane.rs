//! sip-filter's data plane with filled tables, loaded as the daemon loads it but attached to nothing.

use anyhow::{Context as _, Result, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sip_filter::{
    bans::{Scope, Target},
    config::Config,
    dataplane::{Image, KernelBan, LoadOptions, LoadedProgram, TableSizes},
};
use sip_filter_common::{
    abi::{Family, Limit, counter_index},
    verdict::{Action, Reason},
};

use super::{
    generator::{NETWORKS, prefix6, source4},
    kernel::Program,
};

/// What sources may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limits {
    /// Far more than they do; every limit is checked all the same.
    Wide,
    /// One packet an hour.
    Narrow,
    /// More than they do each, but nearly nothing together.
    NoBudget,
    /// This limit for everything, and no shared one.
    Only(Limit),
}

/// How the tables are filled. The first sources are banned, in both families; then come trusted ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filling {
    /// Banned addresses of each family: the sources with the first indices.
    pub(super) bans: u32,
    /// Banned networks of each family, likewise.
    pub(super) networks: u32,
    /// Trusted sources of each family, from [`TRUSTED`] on.
    pub(super) trusted: u32,
    /// Allowed networks of each family, from [`ALLOWED`] on.
    pub(super) allowed: u32,
    pub(super) limits: Limits,
    /// Report what passes to user space.
    pub(super) events: bool,
    /// Fill in IPv6, too.
    pub(super) v6: bool,
}

/// Index of the first trusted source.
pub(super) const TRUSTED: u32 = 1 << 26;
/// Index of the first allowed network, and of the source in it.
pub(super) const ALLOWED: u32 = 1 << 27;
/// Index of the first source that nobody knows.
pub(super) const STRANGERS: u32 = 1 << 28;

impl Filling {
    /// Empty tables.
    pub(super) const NOTHING: Self = Self {
        bans: 0,
        networks: 0,
        trusted: 0,
        allowed: 0,
        limits: Limits::Wide,
        events: true,
        v6: true,
    };
    /// The same without IPv6, which is quicker to fill.
    pub(super) const fn ipv4_only(self) -> Self {
        Self { v6: false, ..self }
    }

    /// A host in operation.
    pub(super) const SITE: Self = Self {
        bans: 16_384,
        networks: 100,
        trusted: 1_000,
        allowed: 16,
        limits: Limits::Wide,
        events: true,
        v6: true,
    };
}

/// The data plane.
pub(super) struct Plane {
    program: LoadedProgram,
    /// Keeps the tables writable.
    _image: Box<dyn Image>,
    /// The program as others see it.
    pub(super) handle: Program,
}

impl Plane {
    /// Loads it and fills its tables.
    ///
    /// # Errors
    /// If the kernel refuses, or a table has no room.
    pub(super) fn load(filling: &Filling) -> Result<Self> {
        let settings = Config::default();
        let mut config = settings.kernel([0x5eed_5eed_5eed_5eed, 0xfeed_feed_feed_feed]);
        let (each, together) = match filling.limits {
            Limits::Wide => (WIDE, WIDE),
            Limits::Narrow => (NARROW, WIDE),
            Limits::NoBudget => (WIDE, NARROW),
            Limits::Only(limit) => (limit, Limit::UNLIMITED),
        };
        config.limits.fill(each);
        config.unknown_budget.fill(together);
        if !filling.events {
            config.snapshots_per_source = 0;
        }
        let sizes = settings.tables.sizes();
        let options = LoadOptions {
            sizes: TableSizes {
                ban4: sizes.ban4.max(filling.bans),
                networks: sizes.networks.max(filling.networks + filling.allowed),
                ..sizes
            },
            config,
            udp_ports: settings.protect.udp_ports,
            tcp_ports: settings.protect.tcp_ports,
            log: false,
            test_clock: false,
        };
        let (mut program, mut image) = LoadedProgram::load("bench", &options)?;
        fill(&mut *image, filling)?;
        let handle = Program::of(program.id()?)?;
        Ok(Self {
            program,
            _image: image,
            handle,
        })
    }

    /// Packets of this reason so far.
    ///
    /// # Errors
    /// If the kernel doesn't tell.
    pub(super) fn packets(&self, reason: Reason) -> Result<u64> {
        let counters = self.program.counters()?;
        let index = |family| counter_index(reason as u8, family, false);
        Ok(Family::ALL
            .iter()
            .filter_map(|family| counters.by_reason.get(index(*family)))
            .sum())
    }

    /// Packets of all reasons so far.
    ///
    /// # Errors
    /// If the kernel doesn't tell.
    pub(super) fn seen(&self) -> Result<u64> {
        Reason::ALL.iter().map(|reason| self.packets(*reason)).sum()
    }

    /// Packets dropped so far, whatever the reason.
    ///
    /// # Errors
    /// If the kernel doesn't tell.
    pub(super) fn dropped(&self) -> Result<u64> {
        let drops = Reason::ALL
            .iter()
            .filter(|reason| reason.action() == Action::Drop);
        drops.map(|reason| self.packets(*reason)).sum()
    }

    /// Takes the events away, as the daemon does, so that the buffer is never full for long.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn drain(&mut self) -> Result<()> {
        self.program.take_events()?;
        Ok(())
    }

    /// Instructions the verifier looked at, for ingress and egress.
    ///
    /// # Errors
    /// If the kernel doesn't tell.
    pub(super) fn verified(&mut self) -> Result<[u32; 2]> {
        let [ingress, egress] = self.program.verified_instructions()?;
        ensure!(ingress.is_some() && egress.is_some(), "the kernel doesn't count");
        Ok([ingress, egress].map(Option::unwrap_or_default))
    }
}

const SECOND: u64 = 1_000_000_000;
/// A packet a nanosecond.
const WIDE: Limit = Limit::new(SECOND, SECOND, SECOND);
const NARROW: Limit = Limit::new(1, 3600 * SECOND, 1);

fn fill(image: &mut dyn Image, filling: &Filling) -> Result<()> {
    let ban = KernelBan {
        scope: Scope::Sip,
        expires: None,
    };
    // Of IPv6 the default table holds fewer.
    let bans6 = if filling.v6 { filling.bans.min(200_000) } else { 0 };
    for index in 0..filling.bans {
        image.put(Target::address(source4(index, 0).into()), ban)?;
        if index < bans6 {
            image.put(Target::network(Ipv6Net::new(prefix6(index, 0), 64)?.into()), ban)?;
        }
    }
    for index in 0..filling.networks {
        for network in networks(index)?
            .into_iter()
            .filter(|network| filling.v6 || network.addr().is_ipv4())
        {
            image
                .put(Target::network(network), ban)
                .with_context(|| format!("network {index}"))?;
        }
    }
    for index in TRUSTED..TRUSTED + filling.trusted {
        let until = Some(std::time::Duration::from_secs(u32::MAX.into()));
        image.set_trust(Target::address(source4(index, 0).into()), until)?;
        let prefix = Ipv6Net::new(prefix6(index, 0), 64)?;
        image.set_trust(Target::network(prefix.into()), until)?;
    }
    let allowed: Vec<IpNet> = (ALLOWED..ALLOWED + filling.allowed)
        .map(networks)
        .collect::<Result<Vec<_>>>()?
        .concat();
    image.set_allowed(&allowed)?;
    Ok(())
}

/// The /24 and the /56 in which the sources of this index lie.
fn networks(index: u32) -> Result<[IpNet; 2]> {
    let v4 = Ipv4Net::new(source4(index, NETWORKS), 24)?.trunc();
    let v6 = Ipv6Net::new(prefix6(index, NETWORKS), 56)?.trunc();
    Ok([v4.into(), v6.into()])
}
