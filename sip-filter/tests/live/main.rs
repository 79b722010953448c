//! The built binary on real interfaces, in network namespaces of its own: what an operator relies on, tried out.

#[cfg(test)]
#[path = "../kernel/frames.rs"]
mod frames;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod wire;

#[cfg(test)]
mod alarms;
#[cfg(test)]
mod analysis;
#[cfg(test)]
mod bans;
#[cfg(test)]
mod captures;
#[cfg(test)]
mod drops;
#[cfg(test)]
mod exactness;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod floods;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod import;
#[cfg(test)]
mod kernels;
#[cfg(test)]
mod life;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod modes;
#[cfg(test)]
mod monitoring;
#[cfg(test)]
mod privileges;
#[cfg(test)]
mod prometheus;
#[cfg(test)]
mod start;
#[cfg(test)]
mod survival;
#[cfg(test)]
mod tmux;
#[cfg(test)]
mod top;
#[cfg(test)]
mod trust;
#[cfg(test)]
mod upkeep;
#[cfg(test)]
mod verbs;
