//! Faults with traffic running: what was promised holds when processes die, disks fill and clocks jump.
//! Part of `cargo xtask faults`; what each test promises is in `docs/reliability.md`.

#[cfg(test)]
mod clients;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod store;
#[cfg(test)]
mod surroundings;
