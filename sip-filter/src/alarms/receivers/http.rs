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
