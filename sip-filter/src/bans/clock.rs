//! The two clocks of a ban.

use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

/// One reading of both clocks.
///
/// Bans live by boot time (`CLOCK_BOOTTIME`), the kernel program's clock, which runs through suspend and is never
/// set: stepping the wall clock neither shortens nor lengthens a ban. Wall time is for people, and to carry bans
/// over a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Wall time.
    pub wall: SystemTime,
    /// Time since boot.
    pub boot: Duration,
}

impl Clock {
    /// Reads both clocks.
    #[must_use]
    pub fn now() -> Self {
        // Linux always has this clock; were it missing, zero makes bans last longer, never shorter.
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
        Self {
            wall: SystemTime::now(),
            boot,
        }
    }

    /// The wall time of a boot time, as the clocks stand now. A time before the epoch is the epoch.
    #[must_use]
    pub fn to_wall(self, boot: Duration) -> SystemTime {
        let wall = match boot.checked_sub(self.boot) {
            Some(ahead) => self.wall.checked_add(ahead),
            None => self.wall.checked_sub(self.boot.saturating_sub(boot)),
        };
        wall.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// The boot time of a wall time, as the clocks stand now. A time before boot is zero.
    #[must_use]
    pub fn to_boot(self, wall: SystemTime) -> Duration {
        match wall.duration_since(self.wall) {
            Ok(ahead) => self.boot.saturating_add(ahead),
            Err(behind) => self.boot.saturating_sub(behind.duration()),
        }
    }

    /// The same clocks so much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self {
            wall: self.wall.checked_add(time).unwrap_or(self.wall),
            boot: self.boot.saturating_add(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_convert_both_ways() {
        let clock = Clock {
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            boot: Duration::from_secs(500),
        };
        for boot in [0, 400, 500, 900] {
            let boot = Duration::from_secs(boot);
            assert_eq!(clock.to_boot(clock.to_wall(boot)), boot);
        }
        assert_eq!(clock.to_boot(SystemTime::UNIX_EPOCH), Duration::ZERO);
    }

    #[test]
    fn the_real_clocks_run() {
        let first = Clock::now();
        assert!(first.boot > Duration::ZERO);
        assert!(Clock::now().boot >= first.boot);
    }
}
