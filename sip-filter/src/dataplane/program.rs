//! The kernel program: loading it with its maps, and running it on a test packet.

use std::{io, net::IpAddr, os::fd::AsFd as _, time::Duration};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf, lpm_trie::Key},
    programs::{SchedClassifier, Xdp},
};
use ipnet::IpNet;
use sip_filter_common::{
    abi::{Config, Control, EventKind, Local, Meta, WINDOW_SHIFT},
    pipeline::{COVER_WORDS, NetworkValue, Recent, recent_of},
    sip::Class,
    table::{Fate, HostLine, ban::summary_words, network::LENGTH_WORDS},
    verdict::Reason,
};

use super::{
    DataplaneError, TableSizes,
    config_switch::ConfigSwitch,
    counters,
    image::{self, Stopped, TableMemory},
    memory::Words,
    networks::{NetworkMemory, Trie},
    ports::port_bitmap,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sip-filter-ebpf"));

/// Name of the program in the object.
const PROGRAM: &str = "ingress";
/// Name of the program for packets that leave.
pub(super) const EGRESS: &str = "egress";

/// Maps worth finding under the pin path: everything but scratch space.
pub(crate) const PINNED: [&str; 25] = [
    "META",
    "CONTROL",
    "CONFIG",
    "PORTS",
    "BAN4",
    "BAN6",
    "BAN6_HOST",
    "SOURCES",
    "TRUST4",
    "TRUST6",
    "BAN4_SUM",
    "BAN6_SUM",
    "TRUST4_SUM",
    "TRUST6_SUM",
    "ENDPOINTS",
    "UNKNOWN",
    "COVER4",
    "COVER6",
    "NETS4",
    "NETS6",
    "LENGTHS",
    "NETWORKS4",
    "NETWORKS6",
    COUNTERS,
    RECENT,
];

/// The map of each CPU's recent events.
const RECENT: &str = "RECENT";

/// The map of each CPU's counters.
pub(crate) const COUNTERS: &str = "LOCAL";

/// What a program is loaded with.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Sizes of the tables.
    pub sizes: TableSizes,
    /// The configuration it starts with.
    pub config: Config,
    /// Protected UDP ports.
    pub udp_ports: Vec<u16>,
    /// Protected TCP ports.
    pub tcp_ports: Vec<u16>,
    /// Let the kernel program log its events (for debugging it).
    pub log: bool,
    /// Take the time from [`LoadedProgram::set_clock`] (for tests).
    pub test_clock: bool,
}

/// The program in the kernel, with its maps, not attached to anything.
pub struct LoadedProgram {
    pub(crate) ebpf: Ebpf,
    pub(super) control: Words,
    pub(super) local: PerCpuArray<MapData, PodLocal>,
    switch: ConfigSwitch,
}

impl LoadedProgram {
    /// Loads the embedded object into the kernel, with empty tables, and returns the image that fills them.
    ///
    /// # Errors
    /// [`DataplaneError`] says what the kernel lacks or refused.
    pub fn load(
        interface: &str,
        options: &LoadOptions,
    ) -> Result<(Self, Box<dyn super::Image>), DataplaneError> {
        let sizes = &options.sizes;
        let masks = [
            sizes.ban4_buckets() - 1,
            sizes.ban6_buckets() - 1,
            sizes.ban6_host_buckets() - 1,
            sizes.source_buckets() - 1,
            sizes.trust4_buckets() - 1,
            sizes.trust6_buckets() - 1,
            sizes.endpoint_buckets() - 1,
            sizes.net4_buckets() - 1,
            sizes.net6_buckets() - 1,
        ];
        let test_clock = u32::from(options.test_clock);
        let log_level: u8 = if options.log { 0xff } else { 0 };
        let mut loader = EbpfLoader::new();
        loader
            .override_global("CFG_BAN4_MASK", &masks[0], true)
            .override_global("CFG_BAN6_MASK", &masks[1], true)
            .override_global("CFG_HOST6_MASK", &masks[2], true)
            .override_global("CFG_SRC_MASK", &masks[3], true)
            .override_global("CFG_TRUST4_MASK", &masks[4], true)
            .override_global("CFG_TRUST6_MASK", &masks[5], true)
            .override_global("CFG_ENDP_MASK", &masks[6], true)
            .override_global("CFG_NETS4_MASK", &masks[7], true)
            .override_global("CFG_NETS6_MASK", &masks[8], true)
            .override_global("CFG_TEST_CLOCK", &test_clock, true)
            .override_global("AYA_LOG_LEVEL", &log_level, true)
            .map_max_entries("BAN4", masks[0] + 1)
            .map_max_entries("BAN6", masks[1] + 1)
            .map_max_entries("BAN6_HOST", masks[2] + 1)
            .map_max_entries("SOURCES", masks[3] + 1)
            .map_max_entries("TRUST4", masks[4] + 1)
            .map_max_entries("TRUST6", masks[5] + 1)
            .map_max_entries("ENDPOINTS", masks[6] + 1)
            .map_max_entries("NETS4", masks[7] + 1)
            .map_max_entries("NETS6", masks[8] + 1)
            .map_max_entries("BAN4_SUM", summary_words(masks[0] + 1))
            .map_max_entries("BAN6_SUM", summary_words(masks[1] + 1))
            .map_max_entries("TRUST4_SUM", summary_words(masks[4] + 1))
            .map_max_entries("TRUST6_SUM", summary_words(masks[5] + 1))
            // The least that can be mapped is a page.
            .map_max_entries("UNKNOWN", 64)
            .map_max_entries("NETWORKS4", sizes.networks.max(1))
            .map_max_entries("NETWORKS6", sizes.networks.max(1));
        let mut ebpf = loader.load(OBJECT).map_err(DataplaneError::load)?;

        let table = |name, mask: u32| map_words(&ebpf, name, (mask as usize + 1) * size_of::<HostLine>());
        let summed = |name, summary, mask: u32| {
            let summary = map_words(&ebpf, summary, summary_words(mask + 1) as usize * 8)?;
            Ok::<_, DataplaneError>(table(name, mask)?.with_summary(&summary))
        };
        let memory = TableMemory {
            ban4: summed("BAN4", "BAN4_SUM", masks[0])?,
            ban6: summed("BAN6", "BAN6_SUM", masks[1])?,
            ban6_host: table("BAN6_HOST", masks[2])?,
            trust4: summed("TRUST4", "TRUST4_SUM", masks[4])?,
            trust6: summed("TRUST6", "TRUST6_SUM", masks[5])?,
            endpoints: table("ENDPOINTS", masks[6])?,
            networks: NetworkMemory {
                cover4: map_words(&ebpf, "COVER4", COVER_WORDS as usize * 8)?,
                cover6: map_words(&ebpf, "COVER6", COVER_WORDS as usize * 8)?,
                nets4: table("NETS4", masks[7])?,
                nets6: table("NETS6", masks[8])?,
                lengths: map_words(&ebpf, "LENGTHS", LENGTH_WORDS as usize * 8)?,
            },
        };
        let control = map_words(&ebpf, "CONTROL", size_of::<Control>())?;
        let configs =
            Array::<_, PodConfig>::try_from(map_again(&ebpf, "CONFIG")?).map_err(DataplaneError::map)?;
        let switch = ConfigSwitch::new(configs, control.clone(), options.config)?;
        write_ports(&ebpf, &options.udp_ports, &options.tcp_ports)?;
        let local = PerCpuArray::try_from(map_again(&ebpf, "LOCAL")?).map_err(DataplaneError::map)?;
        let trie = KernelTrie {
            v4: LpmTrie::try_from(map_again(&ebpf, "NETWORKS4")?).map_err(DataplaneError::map)?,
            v6: LpmTrie::try_from(map_again(&ebpf, "NETWORKS6")?).map_err(DataplaneError::map)?,
        };
        let prefix = u8::try_from(options.config.source_prefix6).unwrap_or(64);
        let image = image::TableImage::new(
            interface,
            (options.config.seed, prefix),
            memory,
            (trie, sizes.networks),
            Box::new(switch.flags_setter()),
        )
        .with_stopped(stopped(
            PerCpuArray::try_from(map_again(&ebpf, "LOCAL")?).map_err(DataplaneError::map)?,
        ));
        xdp(&mut ebpf)?.load().map_err(DataplaneError::program)?;
        classifier(&mut ebpf)?.load().map_err(DataplaneError::program)?;
        Ok((
            Self {
                ebpf,
                control,
                local,
                switch,
            },
            Box::new(image),
        ))
    }

    /// Puts another configuration in force, all of it at once.
    ///
    /// # Errors
    /// If the kernel refuses; the old one then stays in force.
    pub fn set_config(&self, config: &Config) -> Result<(), DataplaneError> {
        self.switch
            .set_config(*config)
            .map_err(|source| DataplaneError::Write {
                what: "configuration",
                source,
            })
    }

    /// Puts other protected ports in force. A packet meets its port as it was or as it is; ports that stay are never
    /// out of force.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_ports(&self, udp: &[u16], tcp: &[u16]) -> Result<(), DataplaneError> {
        write_ports(&self.ebpf, udp, tcp)
    }

    /// Sums the counters of all CPUs.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn counters(&self) -> Result<super::Counters, DataplaneError> {
        let values = self.local.get(&0, 0).map_err(DataplaneError::map)?;
        let mut sum = counters::zero();
        for PodLocal(local) in values.iter() {
            counters::add(&mut sum, &local.counters);
        }
        Ok(sum)
    }

    /// Packets of a class from a source that were counted since a boot time and are told with its next event. `counted_by`
    /// is what the program was loaded with: hash seed, and IPv6 prefix length by which sources are counted.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn untold(
        &self,
        (address, class): (IpAddr, Class),
        counted_by: ([u64; 2], u32),
        since: Duration,
    ) -> Result<u64, DataplaneError> {
        let map = self.ebpf.map(RECENT).ok_or(DataplaneError::Object(RECENT))?;
        let recent: PerCpuArray<_, PodRecent> = PerCpuArray::try_from(map).map_err(DataplaneError::map)?;
        let since = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) >> WINDOW_SHIFT;
        let (source, mut packets) = (image::source(address), 0);
        for kind in [EventKind::Snapshot, EventKind::OverLimit] {
            let (index, key) = recent_of(counted_by.0, counted_by.1, source, (class, kind));
            let of_cpus = recent.get(&index, 0).map_err(DataplaneError::map)?;
            let waiting = of_cpus
                .iter()
                .filter(|PodRecent(recent)| recent.key == key && u64::from(recent.window) >= since);
            packets += waiting
                .map(|PodRecent(recent)| u64::from(recent.pending))
                .sum::<u64>();
        }
        Ok(packets)
    }

    /// Instructions the verifier looked at, for ingress and egress.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn verified_instructions(&mut self) -> Result<[Option<u32>; 2], DataplaneError> {
        let ingress = xdp(&mut self.ebpf)?.info().map_err(DataplaneError::program)?;
        let egress = classifier(&mut self.ebpf)?
            .info()
            .map_err(DataplaneError::program)?;
        Ok([ingress, egress].map(|info| info.verified_instruction_count()))
    }

    /// The kernel's id of the ingress program, by which others find it.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn id(&mut self) -> Result<u32, DataplaneError> {
        let info = xdp(&mut self.ebpf)?.info().map_err(DataplaneError::program)?;
        Ok(info.id())
    }

    /// Writes who owns the tables and how they are attached.
    pub(crate) fn set_meta(&self, meta: Meta) -> Result<(), DataplaneError> {
        let mut array =
            Array::<_, PodMeta>::try_from(map_again(&self.ebpf, "META")?).map_err(DataplaneError::map)?;
        array.set(0, PodMeta(meta), 0).map_err(DataplaneError::map)
    }

    /// The ring buffer of events.
    pub(crate) fn events(&self) -> Result<RingBuf<MapData>, DataplaneError> {
        RingBuf::try_from(map_again(&self.ebpf, "EVENTS")?).map_err(DataplaneError::map)
    }
}

/// Counts of packets stopped by bans; as before, should the kernel not tell.
fn stopped(local: PerCpuArray<MapData, PodLocal>) -> Stopped {
    let mut last = [0; 2];
    Box::new(move || {
        if let Ok(values) = local.get(&0, 0) {
            last = [Reason::DropBanAddress, Reason::DropBanNetwork].map(|reason| {
                let of_cpu = |PodLocal(local): &PodLocal| counters::packets(&local.counters, reason);
                values.iter().map(of_cpu).sum()
            });
        }
        last
    })
}

/// The program for packets that leave.
pub(crate) fn classifier(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, DataplaneError> {
    ebpf.program_mut(EGRESS)
        .ok_or(DataplaneError::Object(EGRESS))?
        .try_into()
        .map_err(DataplaneError::program)
}

/// Reads the record a running data plane left under its pins.
pub(crate) fn pinned_meta(path: &std::path::Path) -> Option<Meta> {
    let map = Map::from_map_data(MapData::from_pin(path).ok()?).ok()?;
    Array::<_, PodMeta>::try_from(map)
        .ok()?
        .get(&0, 0)
        .ok()
        .map(|PodMeta(meta)| meta)
}

pub(crate) fn map_data<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a MapData, DataplaneError> {
    match ebpf.map(name) {
        Some(Map::Array(data) | Map::PerCpuArray(data) | Map::LpmTrie(data) | Map::RingBuf(data)) => Ok(data),
        _ => Err(DataplaneError::Object(name)),
    }
}

/// Another handle of a map.
fn map_again(ebpf: &Ebpf, name: &'static str) -> Result<Map, DataplaneError> {
    let fd = map_data(ebpf, name)?
        .fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| DataplaneError::Write { what: name, source })?;
    MapData::from_fd(fd)
        .and_then(Map::from_map_data)
        .map_err(DataplaneError::map)
}

pub(super) fn map_words(ebpf: &Ebpf, name: &'static str, bytes: usize) -> Result<Words, DataplaneError> {
    Words::map(map_data(ebpf, name)?.fd(), bytes)
        .map_err(|source| DataplaneError::Write { what: name, source })
}

fn write_ports(ebpf: &Ebpf, udp: &[u16], tcp: &[u16]) -> Result<(), DataplaneError> {
    let mut array = Array::<_, u64>::try_from(map_again(ebpf, "PORTS")?).map_err(DataplaneError::map)?;
    let mut result = Ok(());
    port_bitmap(udp, tcp, |index, word| {
        if result.is_ok() {
            result = array.set(index, word, 0);
        }
    });
    result.map_err(DataplaneError::map)
}

/// The kernel's tries, one for each family.
struct KernelTrie {
    v4: LpmTrie<MapData, [u8; 4], [u32; 4]>,
    v6: LpmTrie<MapData, [u8; 16], [u32; 4]>,
}

impl Trie for KernelTrie {
    fn insert(&mut self, net: IpNet, value: NetworkValue) -> io::Result<()> {
        let NetworkValue {
            sip,
            all,
            allowed,
            hits,
        } = value;
        let value = [sip.0, all.0, allowed, hits];
        let length = u32::from(net.prefix_len());
        match net {
            IpNet::V4(net) => self
                .v4
                .insert(&Key::new(length, net.network().octets()), value, 0),
            IpNet::V6(net) => self
                .v6
                .insert(&Key::new(length, net.network().octets()), value, 0),
        }
        .map_err(into_io)
    }

    fn remove(&mut self, net: IpNet) -> io::Result<()> {
        let length = u32::from(net.prefix_len());
        let removed = match net {
            IpNet::V4(net) => self.v4.remove(&Key::new(length, net.network().octets())),
            IpNet::V6(net) => self.v6.remove(&Key::new(length, net.network().octets())),
        };
        match removed.map_err(into_io) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn get(&self, net: IpNet) -> Option<NetworkValue> {
        // The trie finds the longest match; only an entry of exactly this network counts. The value does not say
        // which one it is, so the caller asks only for networks it has inserted.
        let length = u32::from(net.prefix_len());
        let [sip, all, allowed, hits] = match net {
            IpNet::V4(net) => self.v4.get(&Key::new(length, net.network().octets()), 0),
            IpNet::V6(net) => self.v6.get(&Key::new(length, net.network().octets()), 0),
        }
        .ok()?;
        Some(NetworkValue {
            sip: Fate(sip),
            all: Fate(all),
            allowed,
            hits,
        })
    }
}

fn into_io(error: MapError) -> io::Error {
    match super::error::os_error(&error) {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::other(error),
    }
}

macro_rules! pod {
    ($($pod:ident($inner:ty);)*) => {$(
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub(crate) struct $pod(pub(crate) $inner);

        // SAFETY: `repr(C)`, made of integers without padding (asserted in sip-filter-common), so that any bytes are
        // a valid value.
        unsafe impl Pod for $pod {}
    )*};
}

pod! {
    PodConfig(Config);
    PodLocal(Local);
    PodRecent(Recent);
    PodMeta(Meta);
}

pub(crate) fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, DataplaneError> {
    ebpf.program_mut(PROGRAM)
        .ok_or(DataplaneError::Object(PROGRAM))?
        .try_into()
        .map_err(DataplaneError::program)
}
