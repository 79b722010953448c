//! `analyze` decides on a capture as the daemon did on the packets: real tools against a real server.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    thread,
    time::Duration,
};

use xtask::lab::{
    Process, Site, Topology,
    capture::Tcpdump,
    client::Client,
    decisions::{self, Action, Decision, Decisions},
    scanners::{Disguise, Scan},
    sipp::{Flood, Pace, Phone, Sipp},
    topology::EDGE_INTERFACE,
    wait,
};

use crate::rig::{Daemon, command, run, usable};

const OFFICE: u8 = 11;
const ATTACKER: u8 = 21;
/// Phones of the office.
const PHONES: u16 = 30;
const LIMIT: Duration = Duration::from_secs(20);
/// So that what scanners do must tell them.
const REHEARSED: &str = "[detect.scanner-signature]\nshadow = true\n";

fn password(user: &str) -> String {
    format!("password of {user}")
}

fn users() -> impl Iterator<Item = String> {
    (0..PHONES).map(|number| (1001 + number).to_string())
}

/// A server with its network, and the filter before it.
struct Scene {
    daemon: Daemon,
    config: PathBuf,
    site: Site,
}

impl Scene {
    fn new(role: &str, settings: &str) -> Self {
        let phones: Vec<Phone> = users()
            .map(|user| Phone {
                address: Topology::phone_v4(OFFICE),
                password: password(&user),
                user,
            })
            .collect();
        let site = Site::start(role, &[OFFICE], &[ATTACKER], &phones, Duration::from_secs(120)).unwrap();
        let bpf = site.dir.mount_bpf().unwrap();
        let socket = site.dir.path().join("api.sock");
        let config = format!(
            "interfaces = [\"{EDGE_INTERFACE}\"]\nstate_dir = \"{}\"\nsocket = \"{}\"\n\
             [bpf]\npin_root = \"{}/pins\"\n{settings}",
            site.dir.path().join("state").display(),
            socket.display(),
            bpf.display()
        );
        let config = site.dir.write("sip-filter.toml", &config).unwrap();
        let command = command(&["run", "--config", config.to_str().unwrap()]);
        let process = Process::spawn(&site.topology.edge, "sip-filter", site.dir.path(), command).unwrap();
        Self {
            daemon: Daemon::started(process, socket),
            config,
            site,
        }
    }

    /// Has the traffic judged live, and by an analysis of what came to the interface and left it; what both say.
    fn judge(&self, traffic: impl FnOnce(&Site)) -> Decisions {
        let (router, dir) = (&self.site.topology.router, &self.site.dir);
        let file = dir.path().join("capture.pcap");
        let tcpdump = Tcpdump::start(router, dir, "edge0", &file, "ip or ip6").unwrap();
        traffic(&self.site);
        let (file, _) = tcpdump.finish().unwrap();
        let live = decisions::of_events(&self.daemon.done(&["events", "-n", "1000", "-o", "json"])).unwrap();
        let own: Vec<String> = Site::server_addresses().iter().map(IpAddr::to_string).collect();
        let mut arguments = vec!["analyze", "-o", "json", "--config", self.config.to_str().unwrap()];
        arguments.extend(own.iter().flat_map(|own| ["--own", own]));
        arguments.push(file.to_str().unwrap());
        let ran = run(&arguments);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let analysis = decisions::of_analysis(&ran.stdout).unwrap();
        assert_eq!(
            decisions::difference(&live, &analysis),
            Vec::<String>::new(),
            "{}",
            self.daemon.done(&["events", "-n", "100"])
        );
        live
    }

    fn scan(&self, scan: &Scan) -> Decisions {
        self.judge(|site| {
            let host = site.topology.attacker(ATTACKER).unwrap();
            let limit = Duration::from_secs(4);
            let mut scanner = scan
                .start_disguised(host, &site.dir, "scan", limit, Disguise::Compact)
                .unwrap();
            let _ = scanner.wait(LIMIT).unwrap();
        })
    }
}

fn decided(by: &[(&str, Action)]) -> Decisions {
    by.iter()
        .map(|(rule, action)| Decision {
            target: Topology::attacker_v4(ATTACKER).to_string(),
            rule: (*rule).to_owned(),
            action: *action,
        })
        .collect()
}

fn ready() -> bool {
    usable(&["kamailio", "sipp", "svcrack", "svwar", "tcpdump"])
}

#[test]
fn passwords_are_guessed() {
    if !ready() {
        return;
    }
    let scene = Scene::new("analysis-guess", REHEARSED);
    let found = scene.scan(&Scan::Crack {
        server: Site::server_v4().ip(),
        user: "1001".to_owned(),
        passwords: "1000-9999".to_owned(),
    });
    let expected = [
        ("auth-failure", Action::Ban),
        ("scanner-signature", Action::WouldBan),
    ];
    assert_eq!(found, decided(&expected));
}

#[test]
fn accounts_are_looked_for() {
    if !ready() {
        return;
    }
    let scene = Scene::new("analysis-scan", REHEARSED);
    let found = scene.scan(&Scan::War {
        server: Site::server_v4().ip(),
        extensions: "500-900".to_owned(),
    });
    let expected = [
        ("account-scan", Action::ShortBan),
        ("scanner-signature", Action::WouldBan),
    ];
    assert_eq!(found, decided(&expected));
}

#[test]
fn calls_come_in_a_flood() {
    if !ready() {
        return;
    }
    let scene = Scene::new("analysis-flood", "");
    let found = scene.judge(|site| {
        let pace = Pace {
            rate: 1_000,
            every: Duration::from_secs(1),
            count: 4_000,
            limit: LIMIT,
        };
        let host = site.topology.attacker(ATTACKER).unwrap();
        let from = SocketAddr::new(Topology::attacker_v4(ATTACKER), 5060);
        let mut flood = Sipp::flood(
            host,
            &site.dir,
            "flood",
            Flood::Invite,
            from,
            Site::server_v4(),
            pace,
        )
        .unwrap();
        let _ = flood.process.wait(LIMIT).unwrap();
    });
    assert_eq!(found, decided(&[("flood-invite", Action::ShortBan)]));
}

#[test]
fn an_office_comes_back() {
    if !ready() {
        return;
    }
    let scene = Scene::new("analysis-office", "");
    let found = scene.judge(|site| {
        let address = Topology::phone_v4(OFFICE);
        let phones: Vec<(Client, String)> = (20_000..)
            .zip(users())
            .map(|(port, user)| {
                let local = SocketAddr::new(address, port);
                let client = Client::new(&site.topology.phones, local, Site::server_v4(), &user);
                (client.unwrap(), password(&user))
            })
            .collect();
        thread::scope(|scope| {
            for (phone, password) in &phones {
                scope.spawn(move || assert!(phone.register(password).unwrap().succeeded()));
            }
        });
    });
    assert_eq!(found, Decisions::new());
    // That there was something to decide upon.
    wait::until("trust", Duration::from_secs(10), || {
        Ok(scene.daemon.json(&["status"])["trusted"] == 1)
    })
    .unwrap();
}
