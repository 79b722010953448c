use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use sip_filter_common::{
    abi::EXPIRY_SHIFT,
    pipeline::COVER_WORDS,
    table::{
        ban::Value as _,
        network::{Effect, LENGTH_WORDS, Lengths, Match, Net4, Net6, block4, block6, hit, longest},
    },
};

use super::*;

const SEED: [u64; 2] = [1, 2];

fn memory() -> NetworkMemory {
    NetworkMemory {
        cover4: Words::heap(COVER_WORDS as usize * 8),
        cover6: Words::heap(COVER_WORDS as usize * 8),
        nets4: Words::heap(64 * 64),
        nets6: Words::heap(64 * 64),
        lengths: Words::heap(LENGTH_WORDS as usize * 8),
    }
}

fn networks() -> Networks<HostTrie> {
    Networks::new(HostTrie::default(), SEED, memory())
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn until(units: u64) -> Fate {
    Fate::new(Some(units << EXPIRY_SHIFT), false)
}

/// What the kernel would find for an address.
fn find(networks: &Networks<HostTrie>, ip: &str) -> Option<NetworkValue> {
    let ip: IpAddr = ip.parse().unwrap();
    let source = match ip {
        IpAddr::V4(v4) => Ip::V4(v4.into()),
        IpAddr::V6(v6) => Ip::V6([(u128::from(v6) >> 64) as u64, u128::from(v6) as u64]),
    };
    let wide = if ip.is_ipv4() { flags::WIDE4 } else { flags::WIDE6 };
    let bit = cover_bit(SEED, source);
    let covered = networks.flags() & wide != 0
        || networks.cover_word((ip.is_ipv6(), bit)).load(Ordering::SeqCst) >> (bit & 63) & 1 != 0;
    let found = networks.trie.lookup(ip).map(|(_, value)| value);
    assert!(
        covered || found.is_none(),
        "{ip} has an entry the kernel would not ask for"
    );
    let effect = found.map_or(Effect::NONE, NetworkValue::effect);
    if let Some(in_tables) = networks.flat.find(source) {
        assert_eq!(in_tables, effect, "{ip}: tables and trie disagree");
    }
    found.filter(|_| covered)
}

#[test]
fn an_expired_inner_ban_hides_no_outer_one() {
    let mut networks = networks();
    networks.put(net("203.0.113.0/28"), until(10)).unwrap();
    networks.put(net("203.0.113.0/24"), until(100)).unwrap();
    assert!(
        find(&networks, "203.0.113.3")
            .unwrap()
            .sip
            .in_force(50 << EXPIRY_SHIFT)
    );
    networks.remove(net("203.0.113.0/24")).unwrap();
    assert!(
        !find(&networks, "203.0.113.3")
            .unwrap()
            .sip
            .in_force(50 << EXPIRY_SHIFT)
    );
    assert_eq!(find(&networks, "203.0.113.99"), None);
}

#[test]
fn allowed_networks_win_inside_and_around() {
    let mut networks = networks();
    networks
        .put(net("198.51.100.0/24"), Fate::new(None, true))
        .unwrap();
    networks
        .set_allowed(&[net("198.51.100.7/32"), net("2001:db8::/32")])
        .unwrap();
    networks
        .put(net("2001:db8:1::/48"), Fate::new(None, false))
        .unwrap();
    assert_eq!(find(&networks, "198.51.100.8").unwrap().allowed, 0);
    let allowed = find(&networks, "198.51.100.7").unwrap();
    assert!(allowed.allowed != 0 && allowed.all.exists());
    assert_ne!(find(&networks, "2001:db8:1::5").unwrap().allowed, 0);
    networks.set_allowed(&[]).unwrap();
    assert_eq!(find(&networks, "198.51.100.7").unwrap().allowed, 0);
    assert_eq!(networks.entries.len(), 2);
}

impl Flat {
    /// As the kernel reads it.
    fn lengths_at(&self, source: Ip) -> Lengths {
        let block = match source {
            Ip::V4(address) => block4(address),
            Ip::V6([high, _]) => block6(SEED, high),
        };
        Lengths(self.lengths.word(block as usize).load(Ordering::SeqCst))
    }

    fn longest(&self, source: Ip) -> Match {
        let lengths = self.lengths_at(source);
        match source {
            Ip::V4(address) => {
                longest::<Net4, _>(&self.memory4, SEED, lengths, |length| Net4::key(address, length))
            }
            Ip::V6([high, _]) => {
                longest::<Net6, _>(&self.memory6, SEED, lengths, |length| Net6::key(high, length))
            }
        }
    }

    /// What the kernel would find, `None` if it would ask the trie.
    fn find(&self, source: Ip) -> Option<Effect> {
        (self.lengths_at(source) != Lengths::TRIE).then(|| self.longest(source).effect)
    }

    fn hit(&self, source: Ip) {
        hit(&self.memory4, self.longest(source).place, 0);
    }

    fn is_empty(&self) -> bool {
        let blocks = 0..LENGTH_WORDS as usize;
        self.nets4.is_empty()
            && self.nets6.is_empty()
            && self.counts.is_empty()
            && self.in_trie == 0
            && blocks
                .clone()
                .all(|block| self.lengths.word(block).load(Ordering::SeqCst) == 0)
    }
}

fn take_hits(networks: &mut Networks<HostTrie>, seen: &mut Vec<(IpNet, u64)>) {
    let mut part = Some(Cursor::default());
    while let Some(from) = part {
        part = networks.take_some_hits(from, &mut |net, hits| seen.push((net, hits)));
    }
}

#[test]
fn hits_are_reported_once_and_survive_changes() {
    let mut networks = networks();
    networks.put(net("192.0.2.0/24"), until(10)).unwrap();
    for _ in 0..3 {
        networks.flat.hit(Ip::V4(0xc000_0209));
    }
    networks.put(net("192.0.2.0/24"), until(20)).unwrap();
    networks.flat.hit(Ip::V4(0xc000_0209));
    let mut seen = Vec::new();
    take_hits(&mut networks, &mut seen);
    take_hits(&mut networks, &mut seen);
    assert_eq!(seen, [(net("192.0.2.0/24"), 4)]);
}

#[test]
fn a_new_network_inside_another_starts_without_its_hits() {
    let mut networks = networks();
    networks.put(net("192.0.2.0/24"), until(10)).unwrap();
    networks.flat.hit(Ip::V4(0xc000_0209));
    networks.put(net("192.0.2.0/28"), until(10)).unwrap();
    let mut seen = Vec::new();
    take_hits(&mut networks, &mut seen);
    assert_eq!(seen, [(net("192.0.2.0/24"), 1)]);
}

/// A trie with room for two entries.
#[derive(Default)]
struct SmallTrie(HostTrie);

impl Trie for SmallTrie {
    fn insert(&mut self, net: IpNet, value: NetworkValue) -> io::Result<()> {
        if self.0.0.len() == 2 && !self.0.0.contains_key(&net) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.0.insert(net, value)
    }

    fn remove(&mut self, net: IpNet) -> io::Result<()> {
        self.0.remove(net)
    }

    fn get(&self, net: IpNet) -> Option<NetworkValue> {
        self.0.get(net)
    }
}

#[test]
fn a_full_trie_changes_nothing() {
    let mut networks = Networks::new(SmallTrie::default(), SEED, memory());
    networks.put(net("192.0.2.0/25"), until(10)).unwrap();
    networks.put(net("198.51.100.0/24"), until(10)).unwrap();
    let before = networks.trie.0.0.clone();
    let error = networks.put(net("192.0.0.0/16"), until(99)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    assert_eq!(networks.trie.0.0, before);
    assert_eq!(networks.entries.len(), 2);
    assert_eq!(networks.covered.len(), 2, "no coverage left behind");
    assert_eq!(
        networks.flat.find(Ip::V4(0xc000_0101)),
        Some(Effect::NONE),
        "no entry left behind"
    );
    let lengths = networks.flat.lengths_at(Ip::V4(0xc000_0101));
    assert_eq!(lengths, Lengths::new([25]), "no length left behind");
}

#[derive(Clone, Debug)]
enum Step {
    Put(IpNet, u64, bool),
    Remove(IpNet),
    Allow(Vec<IpNet>),
}

fn nets() -> impl Strategy<Value = IpNet> {
    // close together, so that they nest
    prop_oneof![
        (0_u32..1 << 12, 4_u8..=32).prop_map(|(low, length)| {
            IpNet::V4(Ipv4Net::new((0x0a00_0000 | low << 6).into(), length).unwrap()).trunc()
        }),
        (0_u128..1 << 12, 24_u8..=128).prop_map(|(low, length)| {
            let address = 0x2001_0db8_u128 << 96 | low << 74 | low;
            IpNet::V6(Ipv6Net::new(address.into(), length).unwrap()).trunc()
        }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (nets(), 1_u64..100, any::<bool>()).prop_map(|(net, end, all)| Step::Put(net, end, all)),
        2 => nets().prop_map(Step::Remove),
        1 => proptest::collection::vec(nets(), 0..4).prop_map(Step::Allow),
    ];
    proptest::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the order of changes, an address is treated as the list of networks around it says.
    #[test]
    fn every_address_is_treated_as_the_list_says(steps in steps(), probes in proptest::collection::vec(nets(), 1..20)) {
        let mut networks = networks();
        let mut bans: BTreeMap<IpNet, (u64, bool)> = BTreeMap::new();
        let mut allowed: Vec<IpNet> = Vec::new();
        for step in steps {
            match step {
                Step::Put(net, end, all) => {
                    networks.put(net, Fate::new(Some(end << EXPIRY_SHIFT), all)).unwrap();
                    bans.insert(net, (end, all));
                }
                Step::Remove(net) => {
                    networks.remove(net).unwrap();
                    bans.remove(&net);
                }
                Step::Allow(nets) => {
                    networks.set_allowed(&nets).unwrap();
                    allowed = nets;
                }
            }
        }
        for probe in probes.iter().chain(bans.keys()) {
            let ip = probe.addr();
            let value = find(&networks, &ip.to_string()).unwrap_or_default();
            prop_assert_eq!(value.allowed != 0, allowed.iter().any(|net| net.contains(&ip)));
            for now in [0_u64, 30, 60, 99, 100] {
                let stops = |all| bans.iter().any(|(net, (end, a))| net.contains(&ip) && *a == all && *end > now);
                prop_assert_eq!(value.all.in_force(now << EXPIRY_SHIFT), stops(true), "{} at {}", ip, now);
                prop_assert_eq!(value.sip.in_force(now << EXPIRY_SHIFT), stops(false), "{} at {}", ip, now);
            }
        }
        for net in bans.keys().copied().collect::<Vec<_>>() {
            networks.remove(net).unwrap();
        }
        networks.set_allowed(&[]).unwrap();
        prop_assert_eq!(networks.flags(), 0);
        prop_assert!(networks.covered.is_empty());
        prop_assert!(networks.flat.is_empty());
    }
}
