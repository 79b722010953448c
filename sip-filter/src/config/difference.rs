//! Which keys of two configurations differ.

use toml::{Table, Value};

use super::Config;

impl Config {
    /// Dotted keys whose values differ.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut keys = Vec::new();
        // A path that is not UTF-8 cannot be written as TOML, nor can it come from TOML.
        if let (Ok(ours), Ok(theirs)) = (Table::try_from(self), Table::try_from(other)) {
            differ("", &ours, &theirs, &mut keys);
        }
        keys
    }
}

fn differ(prefix: &str, ours: &Table, theirs: &Table, keys: &mut Vec<String>) {
    let only_theirs = theirs.keys().filter(|key| !ours.contains_key(*key));
    for key in ours.keys().chain(only_theirs) {
        match (ours.get(key), theirs.get(key)) {
            (Some(Value::Table(ours)), Some(Value::Table(theirs))) => {
                differ(&format!("{prefix}{key}."), ours, theirs, keys);
            }
            (ours, theirs) if ours != theirs => keys.push(format!("{prefix}{key}")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_keys_are_named_in_full() {
        let old = Config::default();
        let new = Config::parse("simulate = true\n[limits.register]\nburst = 7\n", "x").unwrap();
        assert_eq!(old.differences(&new), ["limits.register.burst", "simulate"]);
        assert!(old.differences(&old).is_empty());
    }
}
