//! Alarms, raised and cleared at real receivers: Alertmanager and rsyslog of the distribution, a hook, and an HTTP server.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use serde_json::Value;
use sip_filter::{
    alarms::{self, Counts, Settings},
    api::types::Mode,
    conditions::{Conditions, Kind},
    config,
};
use tokio_util::sync::CancellationToken;
use xtask::lab::{Netns, Process, WorkDir, wait};

use crate::rig::{Rig, usable};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const ALERTMANAGER: &str = "127.0.0.1:9093";
const WEBHOOK: &str = "127.0.0.1:9999";

/// The distribution's Alertmanager, alone in a namespace.
pub(crate) fn alertmanager(netns: &Netns, dir: &WorkDir) -> Process {
    let config = dir
        .write(
            "alertmanager.yml",
            "route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n",
        )
        .unwrap();
    let mut command = Command::new("prometheus-alertmanager");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.path={}",
            dir.path().join("alertmanager").display()
        ))
        .arg(format!("--web.listen-address={ALERTMANAGER}"))
        .arg("--cluster.listen-address=");
    let process = Process::spawn(netns, "alertmanager", dir.path(), command).unwrap();
    wait::for_port(netns, ALERTMANAGER.parse().unwrap(), PATIENCE).unwrap();
    process
}

/// The alerts that Alertmanager takes for firing, by name.
pub(crate) fn firing(netns: &Netns) -> BTreeMap<String, Value> {
    let url = format!("http://{ALERTMANAGER}/api/v2/alerts?active=true");
    let json = netns.run("curl", &["--silent", "--fail", &url]).unwrap();
    let alerts: Vec<Value> = serde_json::from_str(&json).unwrap();
    let name = |alert: &Value| alert["labels"]["alertname"].as_str().unwrap().to_owned();
    alerts.into_iter().map(|alert| (name(&alert), alert)).collect()
}

/// rsyslogd with a socket that writes each message's structured data and text to a file.
fn rsyslog(netns: &Netns, dir: &WorkDir) -> Process {
    let path = |name: &str| dir.path().join(name).display().to_string();
    let config = format!(
        "module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
         input(type=\"imuxsock\" Socket=\"{}\" useSpecialParser=\"off\" parseHostname=\"on\")\n\
         template(name=\"line\" type=\"string\" string=\"%syslogseverity-text% %hostname% %app-name% %msgid% \
         %structured-data%%msg%\\n\")\n\
         action(type=\"omfile\" file=\"{}\" template=\"line\")\n",
        path("log.sock"),
        path("syslog.txt"),
    );
    let config = dir.write("rsyslog.conf", &config).unwrap();
    let mut command = Command::new("rsyslogd");
    command.args(["-n", "-i", &path("rsyslog.pid"), "-f"]).arg(config);
    let process = Process::spawn(netns, "rsyslogd", dir.path(), command).unwrap();
    wait::until("rsyslog's socket", PATIENCE, || {
        Ok(Path::new(&path("log.sock")).exists())
    })
    .unwrap();
    process
}

/// An HTTP server that hands out what was posted to it. The first request is answered with 503: later.
fn webhook(netns: &Netns) -> Receiver<Value> {
    let address: SocketAddr = WEBHOOK.parse().unwrap();
    let listener = netns.enter(|| TcpListener::bind(address)).unwrap().unwrap();
    let (posted, inbox) = channel();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            // The test has ended.
            let Ok(stream) = stream else { return };
            answer(stream, number == 0, &posted);
        }
    });
    inbox
}

fn answer(mut stream: TcpStream, later: bool, posted: &Sender<Value>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut length, mut authorized) = (String::new(), 0, false);
    while reader.read_line(&mut line).unwrap() > 2 {
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        authorized |= line.trim() == "authorization: Bearer secret";
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let status = if later {
        "503 Service Unavailable"
    } else {
        "200 OK"
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    .unwrap();
    if !later && authorized {
        // Nobody asks any more: the test has ended.
        let _ = posted.send(serde_json::from_slice(&body).unwrap());
    }
}

/// Receivers of every kind.
fn settings(dir: &WorkDir, hook: &Path) -> config::Alarms {
    let mut alarms = config::Alarms {
        hold_up: Duration::ZERO,
        hold_down: Duration::ZERO,
        host: Some("edge1".into()),
        ..config::Alarms::default()
    };
    alarms.alertmanager.url = Some(format!("http://{ALERTMANAGER}/"));
    alarms.webhook.url = Some(format!("http://{WEBHOOK}/alarm"));
    alarms.webhook.authorization_file = Some(dir.write("token", "Bearer secret\n").unwrap());
    let socket = dir.path().join("log.sock");
    alarms.syslog.target = Some(format!("unix:{}", socket.display()).parse().unwrap());
    alarms.exec.command = vec!["/bin/sh".into(), hook.display().to_string()];
    alarms
}

#[test]
fn each_alarm_is_raised_and_cleared_at_each_receiver() {
    if !usable(&["prometheus-alertmanager", "rsyslogd", "curl"]) {
        return;
    }
    let dir = WorkDir::new("alarms").unwrap();
    let netns = Arc::new(Netns::new("alarms").unwrap());
    let (_alertmanager, _rsyslog) = (alertmanager(&netns, &dir), rsyslog(&netns, &dir));
    let posted = webhook(&netns);
    let heard = dir.path().join("heard.txt");
    let hook = dir
        .write("hook.sh", &format!("cat >> {}\n", heard.display()))
        .unwrap();

    let conditions = Conditions::default();
    let (counts, shutdown) = (Counts::default(), CancellationToken::new());
    let task = {
        let settings = Settings {
            alarms: settings(&dir, &hook),
            mode: Mode::Simulate,
        };
        let run = alarms::run(
            conditions.clone(),
            move || settings.clone(),
            counts.clone(),
            shutdown.clone(),
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let netns = netns.clone();
        // Threads that are made in the namespace stay in it.
        thread::spawn(move || netns.enter(|| runtime.block_on(run)).unwrap())
    };

    let names: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let all = |status: &str| -> Told {
        names
            .iter()
            .map(|name| ((*name).to_owned(), status.to_owned()))
            .collect()
    };
    let mut by_webhook = Told::new();
    let mut told_everywhere = |expected: &Told| {
        while !by_webhook.is_superset(expected) {
            by_webhook.insert(of_webhook(&posted.recv_timeout(PATIENCE).unwrap()));
        }
        wait::until("the hook", PATIENCE, || Ok(of_hook(&heard).is_superset(expected))).unwrap();
        let log = dir.path().join("syslog.txt");
        wait::until("syslog", PATIENCE, || Ok(of_syslog(&log).is_superset(expected))).unwrap();
    };

    for kind in Kind::ALL {
        conditions.raise(kind, "eth0", format!("{} \"quoted\" ] text", kind.name()));
    }
    wait::until("all alarms at Alertmanager", PATIENCE, || {
        Ok(firing(&netns).len() == names.len())
    })
    .unwrap();
    told_everywhere(&all("firing"));
    let detached = &firing(&netns)["SipFilterDetached"];
    assert_eq!(detached["labels"]["severity"], "critical");
    assert_eq!(detached["labels"]["host"], "edge1");
    assert_eq!(detached["labels"]["subject"], "eth0");
    assert_eq!(detached["annotations"]["mode"], "simulate");
    assert_eq!(detached["annotations"]["summary"], "detached \"quoted\" ] text");
    assert_eq!(detached["annotations"]["description"], Kind::Detached.remedy());

    for kind in Kind::ALL {
        conditions.clear(kind, "eth0");
    }
    wait::until("their end", PATIENCE, || Ok(firing(&netns).is_empty())).unwrap();
    told_everywhere(&all("resolved"));

    shutdown.cancel();
    task.join().unwrap();
    for (name, count) in counts.get() {
        assert_eq!((count.waiting, count.refused), (0, 0), "{name}: {count:?}");
        assert_eq!(count.delivered, 2 * Kind::ALL.len() as u64, "{name}: {count:?}");
        // The webhook's first answer was 503.
        assert_eq!(count.failed, u64::from(name == "webhook"), "{name}: {count:?}");
    }
}

/// Name and status of each alarm that a receiver was told.
type Told = BTreeSet<(String, String)>;

fn of_webhook(body: &Value) -> (String, String) {
    assert_eq!(body["version"], "4");
    assert_eq!(body["status"], body["alerts"][0]["status"]);
    let text = body["alerts"][0]["annotations"]["summary"].as_str().unwrap();
    let name = text.split(' ').next().unwrap().to_owned();
    (name, body["status"].as_str().unwrap().to_owned())
}

fn of_hook(file: &Path) -> Told {
    let text = fs::read_to_string(file).unwrap_or_default();
    // The last line may be half written.
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let field = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    lines
        .map(|line| (field(&line, "name"), field(&line, "status")))
        .collect()
}

fn of_syslog(file: &Path) -> Told {
    let text = fs::read_to_string(file).unwrap_or_default();
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let (severity, host, program, id) = (words.next()?, words.next()?, words.next()?, words.next()?);
        assert_eq!((host, program), ("edge1", "sip-filter"), "{line}");
        let resolved = line.contains("status=\"resolved\"");
        assert_eq!(resolved, severity == "notice", "{line}");
        assert!(line.contains("subject=\"eth0\""), "{line}");
        let status = if resolved { "resolved" } else { "firing" };
        Some((id.to_owned(), status.to_owned()))
    };
    text.lines().filter_map(parse).collect()
}

#[test]
fn the_daemon_tells_alertmanager_and_a_reload_changes_whom_it_tells() {
    if !usable(&["prometheus-alertmanager", "curl"]) {
        return;
    }
    let rig = Rig::new("alarm-daemon");
    let _alertmanager = alertmanager(&rig.server, &rig.dir);
    let alarms = |url: &str| {
        format!(
            "[conditions]\nsimulate_max = \"1s\"\ntable_full_percent = 20\n[alarms]\nhold_up = \"0s\"\nhold_down = \"0s\"\n\
             [alarms.alertmanager]\nurl = \"{url}\"\nrepeat = \"1s\"\n[tables]\nban4 = 64\n"
        )
    };
    rig.config("main", "simulate = true\n", &alarms(""));
    let daemon = rig.start("main", &[]);
    thread::sleep(Duration::from_secs(3));
    assert!(firing(&rig.server).is_empty(), "nobody is to be told");

    rig.config(
        "main",
        "simulate = true\n",
        &alarms(&format!("http://{ALERTMANAGER}")),
    );
    assert_eq!(daemon.ask(&["config", "reload"]).code, Some(0));
    let fires = |name: &str| {
        wait::until(name, PATIENCE, || Ok(firing(&rig.server).contains_key(name))).unwrap();
        firing(&rig.server).remove(name).unwrap()
    };
    let ends = |name: &str| {
        wait::until(
            "its end",
            PATIENCE,
            || Ok(!firing(&rig.server).contains_key(name)),
        )
        .unwrap();
    };
    let alert = fires("SipFilterSimulateTooLong");
    assert_eq!(alert["annotations"]["mode"], "simulate");
    assert_eq!(daemon.ask(&["mode", "enforce"]).code, Some(0));
    ends("SipFilterSimulateTooLong");

    let addresses: Vec<String> = (1..=100).map(|last| format!("198.51.100.{last}")).collect();
    let ban: Vec<&str> = ["ban"]
        .into_iter()
        .chain(addresses.iter().map(String::as_str))
        .collect();
    let ran = daemon.ask(&ban);
    let alert = fires("SipFilterMapNearlyFull");
    assert_eq!(alert["annotations"]["mode"], "enforce", "{ran:?}");
    assert_eq!(daemon.ask(&["unban", "--all", "--yes"]).code, Some(0));
    ends("SipFilterMapNearlyFull");
}
