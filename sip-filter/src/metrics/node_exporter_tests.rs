//! Against the real node_exporter: what matters is not what we write but what arrives.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{Textfile, render, render::tests::snapshot};

/// Debian's name and the upstream one.
const BINARIES: [&str; 2] = ["prometheus-node-exporter", "node_exporter"];

/// Ends the exporter also when the test fails.
struct Exporter(Child);

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(directory: &Path, port: u16) -> Option<Exporter> {
    BINARIES.iter().find_map(|binary| {
        Command::new(binary)
            .arg("--collector.disable-defaults")
            .arg("--collector.textfile")
            .arg(format!("--collector.textfile.directory={}", directory.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()
            .map(Exporter)
    })
}

/// Asks until the exporter answers.
fn scrape(port: u16) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            stream
                .write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
                .unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            return text;
        }
        assert!(Instant::now() < deadline, "node_exporter does not answer");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn everything_arrives_with_its_type_and_value() {
    let directory = tempfile::tempdir().unwrap();
    let textfile = Textfile::new(directory.path());
    let ours = render(&snapshot()).unwrap();
    textfile.write(&ours).unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let Some(_exporter) = start(directory.path(), port) else {
        assert!(
            std::env::var_os("SIP_FILTER_REQUIRE_KERNEL").is_none_or(|value| value != "1"),
            "none of {BINARIES:?} is installed"
        );
        eprintln!("skipped: none of {BINARIES:?} is installed");
        return;
    };
    let theirs = scrape(port);
    assert!(theirs.contains("\nnode_textfile_scrape_error 0\n"), "{theirs}");
    assert!(theirs.contains("node_textfile_mtime_seconds{"), "{theirs}");
    for line in ours.lines() {
        // The exporter writes large numbers in another form, so values are compared as numbers.
        let found = match line.rsplit_once(' ') {
            Some((series, value)) if !line.starts_with('#') => theirs.lines().any(|theirs| {
                theirs.rsplit_once(' ').is_some_and(|(name, number)| {
                    name == series && number.parse::<f64>().ok() == value.parse::<f64>().ok()
                })
            }),
            _ => theirs.lines().any(|theirs| theirs == line),
        };
        assert!(found, "{line}\n{theirs}");
    }
}
