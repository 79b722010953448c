//! The heap: giving back what a long list left behind.

/// Operations on so many bans leave memory behind that is worth giving back: about a kilobyte each that they took while
/// under way.
pub(super) const MANY: usize = 10_000;

/// Gives the system back what was freed. The C library keeps it: what an import frees lies between the bans that stay, and
/// of its own accord it only gives back what lies behind all of them. Other threads wait for memory meanwhile, for some
/// milliseconds.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer of ours, and any thread may call it at any time.
    let _ = unsafe { libc::malloc_trim(0) };
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use std::{
        fs::File,
        io::{Read as _, Seek as _, SeekFrom},
    };

    use super::*;

    const PAGE: usize = 4096;

    /// How many of the pages at these addresses are in memory.
    fn present(addresses: &[usize]) -> usize {
        let mut map = File::open("/proc/self/pagemap").unwrap();
        let is_present = |address: &&usize| {
            let mut entry = [0; 8];
            map.seek(SeekFrom::Start((*address / PAGE * 8) as u64)).unwrap();
            map.read_exact(&mut entry).unwrap();
            u64::from_ne_bytes(entry) >> 63 == 1
        };
        addresses.iter().filter(is_present).count()
    }

    #[test]
    fn what_lies_between_kept_entries_is_given_back() {
        // 64 MiB in pieces as small as those of an import; one in a hundred stays, the last among them.
        let pieces: Vec<Box<[u8; 256]>> = (0..262_144).map(|_| Box::new([1; 256])).collect();
        let addresses: Vec<usize> = pieces
            .iter()
            .step_by(64)
            .map(|piece| std::ptr::from_ref(&**piece) as usize)
            .collect();
        let kept: Vec<Box<[u8; 256]>> = pieces
            .into_iter()
            .enumerate()
            .filter_map(|(number, piece)| (number % 100 == 99 || number == 262_143).then_some(piece))
            .collect();
        assert!(
            present(&addresses) > addresses.len() * 9 / 10,
            "it is given back anyhow, and this is not needed"
        );
        give_back();
        let left = present(&addresses);
        assert!(left < addresses.len() * 6 / 10, "{left} of {}", addresses.len());
        assert!(kept.iter().all(|piece| piece[255] == 1));
    }
}
