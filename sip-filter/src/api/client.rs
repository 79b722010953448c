//! The client of the control API.

use std::{
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use nix::unistd::{Gid, Group};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::{
    ApiError, Lines,
    error::ErrorBody,
    types::{
        Access, AllowAdd, AllowList, AllowRemove, AllowResult, BanFilter, BanList, BanRequest, BanResult,
        Check, ConfigText, DroppedPacket, Event, Health, ImportReport, ImportRequest, Mode, ModeChange,
        ModeRequest, ReloadReport, Status, Targeted, Top, TopQuery, Unban, UnbanResult,
    },
};

/// How long the daemon may take to answer. Placing half a million bans takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("the daemon is not running: {} {problem}", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The socket may not be opened.
    #[error("not permitted to open {}, which is for {}", socket.display(), whose(group))]
    NotPermitted {
        /// The socket.
        socket: PathBuf,
        /// Whose members may open it.
        group: String,
    },
    /// The socket fails otherwise.
    #[error("cannot reach the daemon at {}", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No answer.
    #[error("the daemon at {} gave no answer within {} s", socket.display(), PATIENCE.as_secs())]
    Silent {
        /// The socket.
        socket: PathBuf,
    },
    /// The connection ended before the answer did.
    #[error("the daemon closed the connection before it answered")]
    Interrupted(#[source] hyper::Error),
    /// The daemon stopped while its events were followed.
    #[error("the daemon stopped")]
    Ended,
    /// The answer is not understood.
    #[error("the daemon's answer is not understood: {0}")]
    Protocol(String),
    /// The daemon answered with an error.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl ClientError {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotRunning { .. } => Some(
                "see `systemctl status sip-filter`; start it with `systemctl start sip-filter` or `sip-filter run`"
                    .to_owned(),
            ),
            Self::NotPermitted { group, .. } if group == ROOT => Some(
                "use sudo; to let others in, set `socket_group` in the configuration and restart the daemon"
                    .to_owned(),
            ),
            Self::NotPermitted { group, .. } => Some(format!(
                "use sudo, or join the group with `usermod -aG {group} USER` and log in again"
            )),
            Self::Unreachable { .. } | Self::Silent { .. } | Self::Interrupted(_) | Self::Ended => {
                Some("see `systemctl status sip-filter` and `journalctl -u sip-filter`".to_owned())
            }
            Self::Protocol(_) => Some("compare `sip-filter --version` with the version of the running daemon".to_owned()),
            Self::Api(error) => error.hint.clone(),
        }
    }

    /// Whether the daemon could not be asked at all.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        match self {
            Self::NotRunning { .. }
            | Self::NotPermitted { .. }
            | Self::Unreachable { .. }
            | Self::Silent { .. }
            | Self::Ended => true,
            Self::Interrupted(_) | Self::Protocol(_) | Self::Api(_) => false,
        }
    }
}

/// A client of the daemon behind one socket. Each call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Mode, interfaces, counters.
    ///
    /// # Errors
    /// [`ClientError`], as for all calls.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// The bans that match.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn bans(&self, filter: &BanFilter) -> Result<BanList, ClientError> {
        let mut query = Query::new("/v1/bans");
        query.add("origin", filter.origin.as_deref());
        query.add("contained", filter.contained);
        query.add("limit", filter.limit);
        self.get(&query.path).await
    }

    /// Everything known about one address.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn check(&self, ip: IpAddr) -> Result<Check, ClientError> {
        let mut query = Query::new("/v1/bans/check");
        query.add("ip", Some(ip));
        self.get(&query.path).await
    }

    /// Bans.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn ban(&self, request: &BanRequest) -> Result<Targeted<BanResult>, ClientError> {
        self.post("/v1/bans", request).await
    }

    /// Lifts bans.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn unban(&self, request: &Unban) -> Result<Targeted<UnbanResult>, ClientError> {
        self.post("/v1/bans/remove", request).await
    }

    /// Takes over a list, or a part of it.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn import(&self, request: &ImportRequest) -> Result<ImportReport, ClientError> {
        self.post(super::routes::IMPORT, request).await
    }

    /// The allow-list.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn allowed(&self) -> Result<AllowList, ClientError> {
        self.get("/v1/allow").await
    }

    /// Adds to the allow-list.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn allow(&self, request: &AllowAdd) -> Result<Targeted<AllowResult>, ClientError> {
        self.post("/v1/allow", request).await
    }

    /// Removes from the allow-list.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn disallow(&self, request: &AllowRemove) -> Result<Targeted<AllowResult>, ClientError> {
        self.post("/v1/allow/remove", request).await
    }

    /// Sources by rate, the newest bans, the traffic of the last minutes.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn top(&self, query: TopQuery) -> Result<Top, ClientError> {
        let TopQuery { limit, seconds } = query;
        self.get(&format!("/v1/top?limit={limit}&seconds={seconds}"))
            .await
    }

    /// Whether this user may change things.
    ///
    /// # Errors
    /// [`ClientError`]: of kind [`ErrorKind::Denied`](super::ErrorKind::Denied) if not; it says who may.
    pub async fn access(&self) -> Result<Access, ClientError> {
        self.get(super::routes::ACCESS).await
    }

    /// Switches between dropping and counting only.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn set_mode(&self, mode: Mode) -> Result<ModeChange, ClientError> {
        self.post("/v1/mode", &ModeRequest { mode }).await
    }

    /// The configuration in force.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn config(&self) -> Result<ConfigText, ClientError> {
        self.get("/v1/config").await
    }

    /// Has the daemon read its configuration again.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn reload(&self) -> Result<ReloadReport, ClientError> {
        self.post("/v1/config/reload", &()).await
    }

    /// Whether everything works.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn health(&self) -> Result<Health, ClientError> {
        let (status, body) = self.request(Method::GET, "/v1/health", Bytes::new()).await?;
        // 503 is also the answer of a daemon that is too busy: only the body tells.
        if status == StatusCode::SERVICE_UNAVAILABLE
            && let Ok(health) = serde_json::from_slice(&body)
        {
            return Ok(health);
        }
        decode(status, &body)
    }

    /// The latest `limit` events and, with `follow`, those to come.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn events(&self, limit: usize, follow: bool) -> Result<Lines<Event>, ClientError> {
        self.lines(&format!("/v1/events?limit={limit}&follow={follow}"))
            .await
    }

    /// Packets dropped from now on, until there were `limit` of them. The kernel program copies them only while
    /// somebody asks.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn drops(&self, limit: u64) -> Result<Lines<DroppedPacket>, ClientError> {
        self.lines(&format!("{}?limit={limit}", super::routes::DROPS))
            .await
    }

    async fn lines<T: DeserializeOwned>(&self, path: &str) -> Result<Lines<T>, ClientError> {
        let (status, body) = self.send(Method::GET, path, Bytes::new()).await?;
        if !status.is_success() {
            let body = body.collect().await.map_err(ClientError::Interrupted)?.to_bytes();
            return Err(failure(status, &body));
        }
        Ok(Lines::new(body))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let (status, body) = self.request(Method::GET, path, Bytes::new()).await?;
        decode(status, &body)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(request).map_err(|error| ClientError::Protocol(error.to_string()))?;
        let (status, body) = self.request(Method::POST, path, body.into()).await?;
        decode(status, &body)
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let exchange = async {
            let (status, body) = self.send(method, path, body).await?;
            let body = body.collect().await.map_err(ClientError::Interrupted)?;
            Ok((status, body.to_bytes()))
        };
        timeout(PATIENCE, exchange)
            .await
            .map_err(|_| ClientError::Silent {
                socket: self.socket.clone(),
            })?
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Incoming), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| unreachable(&self.socket, source))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ClientError::Interrupted)?;
        // Its error reaches the caller through the request or its body.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "sip-filter")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        let response = timeout(PATIENCE, sender.send_request(request))
            .await
            .map_err(|_| ClientError::Silent {
                socket: self.socket.clone(),
            })?
            .map_err(ClientError::Interrupted)?;
        let (head, body) = response.into_parts();
        Ok((head.status, body))
    }
}

fn decode<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
    if !status.is_success() {
        return Err(failure(status, body));
    }
    serde_json::from_slice(body).map_err(|error| ClientError::Protocol(error.to_string()))
}

fn failure(status: StatusCode, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => ClientError::Api(body.into()),
        Err(_) => ClientError::Protocol(format!("HTTP status {status} without an explanation")),
    }
}

fn unreachable(socket: &Path, source: io::Error) -> ClientError {
    let socket = socket.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => ClientError::NotRunning {
            socket,
            problem: "does not exist",
        },
        io::ErrorKind::ConnectionRefused => ClientError::NotRunning {
            socket,
            problem: "is left over from a daemon that is gone",
        },
        io::ErrorKind::PermissionDenied => {
            let group = group_of(&socket);
            ClientError::NotPermitted { socket, group }
        }
        _ => ClientError::Unreachable { socket, source },
    }
}

/// The group of whoever set none.
const ROOT: &str = "root";

fn whose(group: &str) -> String {
    if group == ROOT {
        return "root alone".to_owned();
    }
    format!("root and the group `{group}`")
}

/// The name of the group that may open the socket, as far as this user can see.
fn group_of(socket: &Path) -> String {
    let gid = match std::fs::metadata(socket).or_else(|_| {
        // The directory is closed to us, too: its group says as much.
        std::fs::metadata(socket.parent().unwrap_or(socket))
    }) {
        Ok(meta) => meta.gid(),
        Err(_) => return "root".to_owned(),
    };
    match Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => group.name,
        _ => gid.to_string(),
    }
}

/// A path with parameters.
struct Query {
    path: String,
    separator: char,
}

impl Query {
    fn new(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            separator: '?',
        }
    }

    fn add(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        let Some(value) = value else { return };
        self.path.push(self.separator);
        self.separator = '&';
        self.path.push_str(name);
        self.path.push('=');
        for byte in value.to_string().bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
                self.path.push(char::from(byte));
            } else {
                self.path.push_str(&format!("%{byte:02X}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_escaped() {
        let mut query = Query::new("/v1/bans");
        query.add("origin", Some("a&b=c d/é"));
        query.add("contained", None::<u8>);
        query.add("limit", Some(5));
        assert_eq!(query.path, "/v1/bans?origin=a%26b%3Dc%20d/%C3%A9&limit=5");
    }
}
