//! The one place of this crate that writes through a pointer: what an event carries of a packet.

use sip_filter_common::packet::Packet;

#[test]
fn a_copy_is_what_lies_there_and_nothing_beyond() {
    let frame: Vec<u8> = (0..40).collect();
    let packet = frame.as_slice();
    for offset in [0, 1, 7, 39, 40, 41, usize::MAX] {
        for len in [0, 1, 8, 33, 40, usize::MAX] {
            let mut target = vec![0xaa; len.min(64)];
            let lies_within = offset.checked_add(len).is_some_and(|end| end <= frame.len());
            // SAFETY: a length that lies within the frame is below that of the target; any other is refused unread.
            let copied = unsafe { Packet::copy_to(&packet, offset, target.as_mut_ptr(), len) };
            assert_eq!(copied, lies_within, "{len} bytes at {offset}");
            if copied {
                assert_eq!(target, frame[offset..offset + len]);
            } else {
                assert!(
                    target.iter().all(|byte| *byte == 0xaa),
                    "written, and yet refused"
                );
            }
        }
    }
}
