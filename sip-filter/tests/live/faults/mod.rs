//! Faults with traffic running: what was promised holds when processes die, disks fill and clocks jump.
//! Part of `cargo xtask faults`; what each test promises is in `docs/reliability.md`.

mod bpffs;
mod clients;
mod clock;
mod counted;
mod events;
mod hang;
mod interfaces;
mod kills;
mod memory;
mod random;
mod store;
mod surroundings;
mod tables;
mod witness;

use std::str::FromStr;

/// A number `cargo xtask faults` gives by the environment (`--kills` is `SIP_FILTER_FAULT_KILLS`); otherwise that of CI.
pub(crate) fn setting<T: FromStr>(name: &str, otherwise: T) -> T {
    let variable = format!("SIP_FILTER_FAULT_{name}");
    let Ok(text) = std::env::var(&variable) else {
        return otherwise;
    };
    text.parse()
        .unwrap_or_else(|_| panic!("{variable} is no number: {text}"))
}
