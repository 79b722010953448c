//! Reads the values of arguments, so that a slip is found before the daemon is asked.

use std::{net::IpAddr, time::Duration};

use clap::ValueEnum;
use ipnet::IpNet;

use crate::{
    api::{Lifetime, types::Mode},
    bans::{Scope, Target},
    units,
};

impl ValueEnum for Mode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Enforce, Self::Simulate]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()).help(match self {
            Self::Enforce => "Drop packets",
            Self::Simulate => "Drop nothing, count what would be dropped",
        }))
    }
}

pub(super) fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text.starts_with('-') {
        return Err(format!(
            "a ban lasts from now on, such as 90s, 1h30m, 7d or permanent; `{text}` is none of these"
        ));
    }
    match units::parse_duration(text) {
        Ok(Some(duration)) if duration.is_zero() => Err("a ban of no length does nothing".to_owned()),
        Ok(duration) => Ok(Lifetime::from_duration(duration)),
        Err(error) => Err(error.to_string()),
    }
}

/// How long to wait.
pub(super) fn waiting(text: &str) -> Result<Duration, String> {
    units::parse_finite_duration(text).map_err(|error| error.to_string())
}

/// How often to look.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match waiting(text)? {
        interval if interval < Duration::from_millis(100) => {
            Err("less than 100ms would only burden the daemon".to_owned())
        }
        interval => Ok(interval),
    }
}

/// One spelling for scopes: that of the JSON.
pub(super) fn scope(text: &str) -> Result<Scope, String> {
    serde_json::from_value(text.into()).map_err(|_| format!("`{text}` is neither `sip` nor `all`"))
}

/// The kernel's rule (`dev_valid_name`). It also keeps names from leaving the directory of the pins.
pub(super) fn interface(name: &str) -> Result<String, String> {
    let valid = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
    if valid {
        Ok(name.to_owned())
    } else {
        Err(format!("`{name}` is not the name of a network interface"))
    }
}

pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an IP address"))
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<Target>()
        .map(Target::net)
        .map_err(|error| error.to_string())
}
