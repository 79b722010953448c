//! Short names for what is remembered of hostile text: 64 bits each, whatever its length.

use std::hash::{DefaultHasher, Hash, Hasher as _};

/// The key of something. Always the same for the same thing, so that the engine is deterministic.
pub(super) fn key(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Longest name of an account that is shown.
const LONGEST: usize = 64;

/// An account's name for people: printable ASCII, what cannot be printed as `.`.
pub(super) fn printable(name: &[u8]) -> String {
    name.iter()
        .take(LONGEST)
        .map(|byte| match byte.is_ascii_graphic() {
            true => char::from(*byte),
            false => '.',
        })
        .collect()
}
