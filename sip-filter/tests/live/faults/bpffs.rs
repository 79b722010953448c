//! The BPF file system goes away, and comes back. Each test has one of its own, mounted in its own directory.

use std::time::{Duration, Instant};

use xtask::lab::{command, wait};

use super::{interfaces::SMALL, witness::Witness};
use crate::rig::{INTERFACE, Rig, usable};

const SOON: Duration = Duration::from_secs(20);

fn mount(rig: &Rig) {
    let path = rig.path("bpf");
    command::run("mount", &["-t", "bpf", "bpf", path.to_str().unwrap()]).unwrap();
}

#[test]
fn without_its_file_system_the_filter_goes_on_and_is_pinned_again() {
    if !usable(&["tc"]) {
        return;
    }
    let rig = Rig::new("bpffs");
    rig.config("main", "", SMALL);
    // A run before, so that there are counters of earlier runs to keep.
    let daemon = rig.start("main", &[]);
    let witness = Witness::begin(&rig, &daemon, Duration::from_secs(180));
    wait::until(
        "some drops",
        SOON,
        || Ok(daemon.counter("drop-ban-address") > 100),
    )
    .unwrap();
    daemon.kill();
    let daemon = rig.start("main", &[]);
    let pins = rig.pins();
    let program = rig.xdp(INTERFACE);
    let path = rig.path("bpf");
    let path = path.to_str().unwrap();
    assert!(
        command::run("umount", &[path]).is_err(),
        "a running daemon holds its directory"
    );

    command::run("umount", &["--lazy", path]).unwrap();
    wait::until("health", SOON, || Ok(daemon.ask(&["health"]).code == Some(1))).unwrap();
    let health = daemon.ask(&["health"]).stdout;
    for words in [
        "the filter on sip0 would end with the daemon",
        "is not on a BPF file system",
        "mount -t bpf",
    ] {
        assert!(health.contains(words), "no `{words}` in {health}");
    }
    let page = crate::monitoring::scrape(&rig.server, "127.0.0.1:9798").unwrap();
    assert!(
        page.contains("sip_filter_condition{name=\"not-pinned\",severity=\"critical\"} 1"),
        "{page}"
    );
    assert!(
        daemon.process.log().contains("not-pinned"),
        "{}",
        daemon.process.log()
    );
    // It filters, and takes bans.
    daemon.done(&["ban", "203.0.113.99"]);
    let dropped = daemon.counter("drop-ban-address");
    wait::until("more drops", SOON, || {
        Ok(daemon.counter("drop-ban-address") > dropped + 100)
    })
    .unwrap();
    assert_eq!(rig.xdp(INTERFACE), program, "the same program all along");
    witness.nothing_leaked("without the BPF file system");

    // A second daemon that is to start there is told what is missing.
    rig.config("second", "", "[metrics]\nlisten = \"\"");
    rig.fail_to_start("second", &[])
        .refused(1, &["is not on a BPF file system", "mount -t bpf"]);

    let mounted = Instant::now();
    mount(&rig);
    wait::until("health", SOON, || Ok(daemon.ask(&["health"]).code == Some(0))).unwrap();
    println!("pinned again {:?} after the mount", mounted.elapsed());
    assert_eq!(rig.pins(), pins, "the same pins as before");
    assert_eq!(rig.xdp(INTERFACE), program);

    // What is pinned again is as good as before: nothing passes when the daemon is killed, and counters go on.
    let dropped = daemon.counter("drop-ban-address");
    daemon.kill();
    witness.nothing_leaked("after the daemon was killed");
    assert_eq!(rig.xdp(INTERFACE), program);
    let daemon = rig.start("main", &[]);
    assert!(
        daemon.process.log().contains("without a gap"),
        "{}",
        daemon.process.log()
    );
    let now = daemon.counter("drop-ban-address");
    assert!(now >= dropped, "{now} after {dropped}");
    assert_eq!(daemon.bans().len(), 2);

    // The same for pins that somebody removes.
    command::run("rm", &["-r", rig.pin_root("main").to_str().unwrap()]).unwrap();
    wait::until("the pins", SOON, || Ok(rig.pins() == pins)).unwrap();
    wait::until("health", SOON, || Ok(daemon.ask(&["health"]).code == Some(0))).unwrap();
    let log = daemon.process.log();
    assert!(log.contains("had been removed, and were put back"), "{log}");
    println!("{}", witness.end(&rig));
}

#[test]
fn a_start_without_the_file_system_says_what_to_mount() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("nobpffs");
    rig.config("main", "", SMALL);
    let path = rig.path("bpf");
    command::run("umount", &[path.to_str().unwrap()]).unwrap();
    rig.fail_to_start("main", &[]).refused(
        1,
        &[
            "cannot filter on sip0",
            "is not on a BPF file system",
            "mount -t bpf",
        ],
    );
    assert_eq!(rig.xdp(INTERFACE), None);
    assert_eq!(
        std::fs::read_dir(&path).unwrap().count(),
        0,
        "nothing was made in its place"
    );
    mount(&rig);
    let daemon = rig.start("main", &[]);
    assert_eq!(daemon.ask(&["health"]).code, Some(0));
}
