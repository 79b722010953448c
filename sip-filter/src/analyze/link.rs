//! Turns packets of other link layers into the Ethernet frames that the pipeline knows.

/// What became of a packet's link layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// The frame is ready.
    Frame,
    /// The frame is ready; the capturing host sent this packet.
    Outgoing,
    /// A link type or header we do not know.
    Unknown,
}

/// EtherTypes.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// Puts the packet into `frame` as an Ethernet frame, with addresses of zeros where it had no Ethernet header.
pub(super) fn to_ethernet(link: u32, data: &[u8], frame: &mut Vec<u8>) -> Link {
    frame.clear();
    match link {
        // LINKTYPE_ETHERNET
        1 => {
            frame.extend_from_slice(data);
            Link::Frame
        }
        // LINKTYPE_LINUX_SLL: packet type, …, protocol, 16 bytes.
        113 => cooked(data, 0..2, 14..16, 16, frame),
        // LINKTYPE_LINUX_SLL2: protocol, …, packet type in the eleventh byte, 20 bytes.
        276 => cooked(data, 10..11, 0..2, 20, frame),
        // LINKTYPE_RAW, DLT_RAW of two systems, LINKTYPE_IPV4, LINKTYPE_IPV6
        101 | 12 | 14 | 228 | 229 => raw(data, frame),
        // LINKTYPE_NULL, LINKTYPE_LOOP: four bytes for the family, in one of two byte orders; the version tells it.
        0 | 108 => data.get(4..).map_or(Link::Unknown, |data| raw(data, frame)),
        _ => Link::Unknown,
    }
}

fn cooked(
    data: &[u8],
    kind: std::ops::Range<usize>,
    protocol: std::ops::Range<usize>,
    length: usize,
    frame: &mut Vec<u8>,
) -> Link {
    const OUTGOING: u8 = 4;
    let (Some(kind), Some([high, low]), Some(rest)) =
        (data.get(kind), data.get(protocol), data.get(length..))
    else {
        return Link::Unknown;
    };
    ethernet(u16::from_be_bytes([*high, *low]), rest, frame);
    if kind.last() == Some(&OUTGOING) {
        return Link::Outgoing;
    }
    Link::Frame
}

fn raw(data: &[u8], frame: &mut Vec<u8>) -> Link {
    let protocol = match data.first().map(|byte| byte >> 4) {
        Some(4) => IPV4,
        Some(6) => IPV6,
        _ => return Link::Unknown,
    };
    ethernet(protocol, data, frame);
    Link::Frame
}

fn ethernet(protocol: u16, data: &[u8], frame: &mut Vec<u8>) {
    frame.extend_from_slice(&[0; 12]);
    frame.extend_from_slice(&protocol.to_be_bytes());
    frame.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_type_becomes_the_same_frame() {
        let packet = [&[0x45][..], &[7; 40]].concat();
        let expected = [&[0; 12][..], &[0x08, 0x00], &packet].concat();
        let with = |head: &[u8]| [head, &packet].concat();
        let mut sll = [0; 16];
        sll[14] = 8;
        let mut sll2 = [0; 20];
        sll2[0] = 8;
        for (link, data) in [
            (1, expected.clone()),
            (101, packet.clone()),
            (12, packet.clone()),
            (228, packet.clone()),
            (113, with(&sll)),
            (276, with(&sll2)),
            (0, with(&[2, 0, 0, 0])),
        ] {
            let mut frame = vec![9];
            assert_eq!(to_ethernet(link, &data, &mut frame), Link::Frame, "{link}");
            assert_eq!(frame, expected, "{link}");
        }
        let mut frame = Vec::new();
        assert_eq!(to_ethernet(229, &[0x60, 1], &mut frame), Link::Frame);
        assert_eq!(frame[12..], [0x86, 0xdd, 0x60, 1]);
    }

    #[test]
    fn outgoing_and_unknown() {
        let mut frame = Vec::new();
        let mut sll = [0; 17];
        sll[1] = 4;
        assert_eq!(to_ethernet(113, &sll, &mut frame), Link::Outgoing);
        let mut sll2 = [0; 21];
        sll2[10] = 4;
        assert_eq!(to_ethernet(276, &sll2, &mut frame), Link::Outgoing);
        for (link, data) in [
            (113, &[0; 15][..]),
            (276, &[0; 19]),
            (101, &[]),
            (101, &[0x50]),
            (0, &[0; 3]),
            (105, &[0; 99]),
        ] {
            assert_eq!(to_ethernet(link, data, &mut frame), Link::Unknown, "{link}");
        }
    }
}
