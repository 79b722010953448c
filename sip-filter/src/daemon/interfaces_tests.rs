use std::sync::{Arc, Mutex};

use super::*;
use crate::{
    conditions::Condition,
    daemon::{Length, bench::Bench, fake::Fake},
};

/// A host with interfaces as the test says.
#[derive(Clone, Default)]
struct Host(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    present: Vec<(String, u32)>,
    /// Those that were made, by name.
    planes: Vec<(String, Fake)>,
    refuse: bool,
    refuse_attach: bool,
}

impl Interfaces for Host {
    fn present(&mut self) -> io::Result<Vec<(String, u32)>> {
        Ok(self.0.lock().unwrap().present.clone())
    }

    fn prepare(&mut self, name: &str, _: &Config) -> Result<Box<dyn Plane>, DataplaneError> {
        let mut state = self.0.lock().unwrap();
        if state.refuse {
            return Err(DataplaneError::Object("no"));
        }
        let plane = Fake::default();
        plane.state().index = state
            .present
            .iter()
            .find(|(present, _)| present == name)
            .unwrap()
            .1;
        plane.state().refuse_attach = state.refuse_attach;
        state.planes.push((name.to_owned(), plane.clone()));
        Ok(plane.named(name))
    }
}

struct Site {
    host: Host,
    keeper: Keeper,
    handle: ControlHandle,
    _events: mpsc::Receiver<Vec<PacketEvent>>,
    _dir: tempfile::TempDir,
}

impl Site {
    fn new(interfaces: &[&str]) -> Self {
        let config = Config {
            interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
            ..Config::default()
        };
        let mut bench = Bench::new(config);
        bench.controller.planes.clear();
        bench
            .ban(&["192.0.2.1", "192.0.2.2"], Length::Configured)
            .unwrap();
        let (handle, dir) = bench.into_handle();
        let (sink, events) = mpsc::channel(4);
        let host = Host::default();
        let keeper = Keeper::new(Box::new(host.clone()), sink, Box::new(|_| false));
        Self {
            host,
            keeper,
            handle,
            _events: events,
            _dir: dir,
        }
    }

    fn look(&mut self, present: &[(&str, u32)]) {
        self.host.0.lock().unwrap().present = present
            .iter()
            .map(|(name, index)| ((*name).to_owned(), *index))
            .collect();
        self.keeper.look(&self.handle);
    }

    fn filtered(&self) -> Vec<String> {
        self.handle.with(|controller, _| {
            let names = controller.planes().iter().map(|plane| plane.name().to_owned());
            names.collect()
        })
    }

    fn wrong(&self) -> Vec<String> {
        let name = |condition: &Condition| format!("{} {}", condition.name.name(), condition.subject);
        self.handle.conditions().current().iter().map(name).collect()
    }

    /// The fake made last.
    fn last(&self) -> Fake {
        self.host.0.lock().unwrap().planes.last().unwrap().1.clone()
    }
}

#[test]
fn what_comes_is_filled_before_it_is_attached_and_what_goes_is_missed() {
    let mut site = Site::new(&["eth0", "wan?"]);
    site.look(&[("lo", 1), ("eth0", 2)]);
    assert_eq!(site.filtered(), ["eth0"]);
    assert_eq!(site.last().state().at_attach, (2, 0), "bans before the attaching");
    assert_eq!(site.wrong(), ["interface-missing wan?"]);
    site.look(&[("lo", 1), ("eth0", 2), ("wan0", 3), ("wan1", 4), ("other", 5)]);
    assert_eq!(site.filtered(), ["eth0", "wan0", "wan1"]);
    assert!(site.wrong().is_empty());
    // Nothing changed, nothing is done.
    site.look(&[("lo", 1), ("eth0", 2), ("wan0", 3), ("wan1", 4), ("other", 5)]);
    assert_eq!(site.host.0.lock().unwrap().planes.len(), 3);

    site.host.0.lock().unwrap().planes[0].1.state().dropped = 40;
    site.look(&[("lo", 1), ("wan1", 4)]);
    assert_eq!(site.filtered(), ["wan1"]);
    assert_eq!(
        site.wrong(),
        ["interface-missing eth0"],
        "a pattern is content with one"
    );
    let absent = site.handle.with(|controller, _| {
        let absent = controller.absent();
        let of = absent
            .into_iter()
            .map(|(name, why, counters)| (name, why, counters.cloned()));
        of.collect::<Vec<_>>()
    });
    assert_eq!(
        (absent[0].0.as_str(), absent[0].1.as_str()),
        ("eth0", "waits for eth0, which is not there")
    );
    assert!(absent[0].2.is_some(), "its counters stay");

    // It comes back, another in truth, and counts on.
    site.look(&[("lo", 1), ("eth0", 9), ("wan1", 4)]);
    assert_eq!(site.filtered(), ["wan1", "eth0"]);
    assert_eq!(site.last().state().dropped, 40);
    assert!(site.wrong().is_empty());
}

#[test]
fn deleted_and_made_again_between_two_looks_is_another_interface() {
    let mut site = Site::new(&["eth0"]);
    site.look(&[("eth0", 2)]);
    let first = site.last();
    site.look(&[("eth0", 3)]);
    assert!(!first.state().attached);
    assert_eq!(site.filtered(), ["eth0"]);
    assert!(site.last().state().attached);
    assert_eq!(site.last().state().index, 3);
}

#[test]
fn a_renamed_interface_is_filtered_as_before() {
    let mut site = Site::new(&["eth*"]);
    site.look(&[("eth0", 2)]);
    site.look(&[("eth7", 2)]);
    assert_eq!(site.filtered(), ["eth7"]);
    assert_eq!(site.host.0.lock().unwrap().planes.len(), 1, "the same program");
    // Also under a name that is not in the configuration: taking the filter off is the worse surprise.
    site.look(&[("wan", 2)]);
    assert_eq!(site.filtered(), ["wan"]);
    assert!(site.last().state().attached);
    assert_eq!(site.wrong(), ["interface-missing eth*"]);
}

#[test]
fn what_does_not_take_the_filter_is_told_and_tried_again() {
    let mut site = Site::new(&["eth0", "eth1"]);
    site.host.0.lock().unwrap().refuse_attach = true;
    site.look(&[("eth0", 2)]);
    assert!(site.filtered().is_empty());
    assert_eq!(site.wrong(), ["detached eth0", "interface-missing eth1"]);
    let current = site.handle.conditions().current();
    assert!(
        current[0]
            .text
            .contains("another XDP program is attached to eth0"),
        "{current:?}"
    );
    // Not at once again.
    site.host.0.lock().unwrap().refuse_attach = false;
    site.look(&[("eth0", 2)]);
    assert_eq!(site.host.0.lock().unwrap().planes.len(), 1);
    std::thread::sleep(RETRY + Duration::from_millis(50));
    site.look(&[("eth0", 2)]);
    assert_eq!(site.filtered(), ["eth0"]);
    assert_eq!(site.wrong(), ["interface-missing eth1"]);

    // The program is taken off by somebody: it is put back.
    site.last().state().attached = false;
    site.look(&[("eth0", 2)]);
    assert_eq!(site.filtered(), ["eth0"]);
    assert_eq!(site.host.0.lock().unwrap().planes.len(), 3);
}

#[test]
fn a_reload_adds_and_takes_away_interfaces() {
    let mut site = Site::new(&["eth0"]);
    let present = [("eth0", 2), ("eth1", 3)];
    site.look(&present);
    let config = Config {
        interfaces: vec!["eth1".to_owned()],
        ..Config::default()
    };
    let reloaded = site
        .handle
        .with(|controller, clock| controller.reload(config, clock))
        .unwrap();
    assert_eq!(reloaded.changed, ["interfaces"]);
    assert!(reloaded.needs_restart.is_empty());
    let first = site.last();
    site.look(&present);
    assert_eq!(site.filtered(), ["eth1"]);
    assert!(!first.state().attached);
}
