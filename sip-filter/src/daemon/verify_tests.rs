use super::*;
use crate::{
    bans::Scope,
    conditions::Condition,
    config::Config,
    daemon::{
        Length,
        bench::{Bench, target},
    },
    dataplane::KernelBan,
};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Bench {
    fn look(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.clock = self.clock.after(s(1));
            self.controller.verify(self.clock);
        }
    }

    fn told(&self) -> Vec<String> {
        let current = self.controller.conditions().current();
        let text = |condition: &Condition| format!("{}: {}", condition.name.name(), condition.text);
        current.iter().map(text).collect()
    }
}

#[test]
fn a_ban_that_the_kernel_does_not_have_is_told_and_written_again() {
    let mut bench = Bench::new(Config::default());
    bench
        .ban(&["192.0.2.1", "192.0.2.2"], Length::Configured)
        .unwrap();
    bench.look(1);
    assert!(bench.told().is_empty());
    assert_eq!(bench.controller.verified().asked, 2);
    bench.ban(&["192.0.2.3"], Length::Configured).unwrap();
    bench.planes[1].state().bans.remove(&target("192.0.2.3"));
    bench.look(1);
    assert_eq!(
        bench.told(),
        [
            "banned-source-passes: 192.0.2.3 is banned and passes on fake1: its kernel tables do not have the ban"
        ]
    );
    assert_eq!(bench.in_kernel().len(), 3, "repaired");
    assert_eq!(bench.controller.verified().passed, 1);
}

#[test]
fn the_round_finds_what_was_lost_and_what_nobody_made() {
    let mut bench = Bench::new(Config::default());
    bench
        .ban(&["192.0.2.1", "192.0.2.2", "198.51.100.0/24"], Length::Configured)
        .unwrap();
    bench.look(2);
    let ban = KernelBan {
        scope: Scope::All,
        expires: None,
    };
    {
        let mut state = bench.planes[0].state();
        state.bans.remove(&target("198.51.100.0/24"));
        state.bans.insert(target("192.0.2.1"), ban);
        state.bans.insert(target("203.0.113.99"), ban);
    }
    bench.look(7);
    assert!(bench.told().is_empty(), "not yet its turn");
    bench.look(4);
    assert_eq!(bench.in_kernel(), ["192.0.2.1", "192.0.2.2", "198.51.100.0/24"]);
    assert_eq!(bench.controller.verified().drift["fake0"], 3);
    let told = bench.told();
    assert!(
        told.len() == 1 && told[0].contains("had 1 bans, such as of 203.0.113.99, that nobody made"),
        "{told:?}"
    );
    bench.look(25);
    assert_eq!(bench.controller.verified().drift["fake0"], 3, "once");
    // It is over when nothing was found for a while.
    bench.clock = bench.clock.after(HOLD);
    bench.controller.conditions().sweep(bench.clock.boot);
    assert!(bench.told().is_empty());
}

#[test]
fn packets_of_a_banned_source_that_get_through_are_suspect() {
    let mut bench = Bench::new(Config::default());
    bench
        .ban(&["192.0.2.0/24", "198.51.100.7"], Length::Configured)
        .unwrap();
    let allowed = bench.controller.allow(&[target("192.0.2.9")], "", bench.clock);
    allowed.unwrap().receipt.wait().unwrap();
    bench.look(10);
    let now = bench.clock.boot;
    let suspect = |bench: &mut Bench, ip: &str, time| {
        let clock = bench.clock;
        bench.controller.suspect(&[(ip.parse().unwrap(), time)], clock);
        bench.told().len()
    };
    assert_eq!(suspect(&mut bench, "192.0.3.1", now), 0, "not banned");
    assert_eq!(suspect(&mut bench, "192.0.2.9", now), 0, "allowed");
    assert_eq!(suspect(&mut bench, "192.0.2.1", now - s(9)), 0, "on its way");
    assert_eq!(suspect(&mut bench, "192.0.2.1", now), 1);
    bench.controller.set_simulate(true, bench.clock).unwrap();
    let before = bench.controller.verified().passed;
    suspect(&mut bench, "198.51.100.7", now);
    assert_eq!(
        bench.controller.verified().passed,
        before,
        "nothing is stopped now"
    );
}
