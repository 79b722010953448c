//! Posting JSON.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use ureq::{
    Agent,
    http::header::{AUTHORIZATION, CONTENT_TYPE},
    tls::{RootCerts, TlsConfig},
};

use super::{DeliveryError, excerpt};

/// Answers longer than this are not read on.
const ANSWER_MAX: u64 = 4096;

/// An endpoint that takes JSON.
#[derive(Debug)]
pub(super) struct Endpoint {
    url: String,
    authorization_file: Option<PathBuf>,
    agent: Agent,
}

impl Endpoint {
    /// Certificates are those that the system trusts; proxies are those of the environment (`HTTPS_PROXY`).
    pub(super) fn new(url: String, authorization_file: Option<&Path>, timeout: Duration) -> Self {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            .max_redirects(0)
            .tls_config(tls)
            .user_agent(concat!("sip-filter/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            url,
            authorization_file: authorization_file.map(Path::to_owned),
            agent: config.new_agent(),
        }
    }

    /// Posts `body`. A 2xx answer is good; 408, 429 and 5xx say "later" (RFC 9110 §15), any other says "never".
    pub(super) fn post(&self, body: &impl Serialize) -> Result<(), DeliveryError> {
        let failed = |source: ureq::Error| DeliveryError::Http {
            url: self.url.clone(),
            source: Box::new(source),
        };
        let body = serde_json::to_vec(body).map_err(|error| failed(ureq::Error::Io(error.into())))?;
        let mut request = self
            .agent
            .post(&self.url)
            .header(CONTENT_TYPE, "application/json");
        if let Some(path) = &self.authorization_file {
            let value = authorization(path).map_err(|source| DeliveryError::Authorization {
                path: path.clone(),
                source,
            })?;
            request = request.header(AUTHORIZATION, value);
        }
        let mut response = request.send(&body[..]).map_err(failed)?;
        let (url, status) = (self.url.clone(), response.status().as_u16());
        if response.status().is_success() {
            return Ok(());
        }
        if matches!(status, 408 | 429 | 500..) {
            return Err(DeliveryError::Unavailable { url, status });
        }
        let answer = response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec();
        Err(DeliveryError::Refused {
            url,
            status,
            answer: excerpt(&answer.unwrap_or_default()),
        })
    }
}

/// Read anew each time, so that a secret can be changed without a restart.
fn authorization(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Answers one request with `head`, then with `body` again and again until nobody reads on.
    fn answer_once(listener: TcpListener, head: String, body: &'static [u8]) -> thread::JoinHandle<()> {
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            while !body.is_empty() && stream.write_all(body).is_ok() {}
        })
    }

    fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        (listener, url)
    }

    #[test]
    fn alarms_and_their_secret_go_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, "Bearer secret\n").unwrap();
        let (elsewhere, other) = listener();
        elsewhere.set_nonblocking(true).unwrap();
        let (receiver, url) = listener();
        let head = format!(
            "HTTP/1.1 307 Elsewhere\r\nLocation: {other}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let served = answer_once(receiver, head, b"");
        let answer = Endpoint::new(url, Some(&secret), LIMIT).post(&["alarm"]);
        assert!(
            matches!(answer, Err(DeliveryError::Refused { status: 307, .. })),
            "{answer:?}"
        );
        served.join().unwrap();
        let error = elsewhere.accept().expect_err("nobody follows");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_answer_without_end_is_not_read_on() {
        let (receiver, url) = listener();
        let head = "HTTP/1.1 400 No\r\nConnection: close\r\n\r\n".to_owned();
        let served = answer_once(receiver, head, b"no, and no, and no. ");
        let answer = Endpoint::new(url, None, LIMIT).post(&["alarm"]);
        let Err(DeliveryError::Refused {
            status: 400, answer, ..
        }) = answer
        else {
            panic!("{answer:?}");
        };
        assert!(
            answer.len() < 1024,
            "{} bytes of it would be logged",
            answer.len()
        );
        // It ends when it is no longer read.
        served.join().unwrap();
    }
}
