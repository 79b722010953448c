//! The text over HTTP.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{CONTENT_TYPE, Snapshot, render};

/// How long a client may take to send its request. Shorter in tests, which wait for it to pass.
const READ_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 5_000 });
/// How long a connection may last in all, so that a client that does not read holds nothing for long. Prometheus'
/// own default is 10 s.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at the same time; further ones wait.
const CONNECTIONS: usize = 16;
/// Pause after a connection could not be accepted, for want of file descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Somebody else has the port.
    #[error(
        "cannot serve metrics on {0}: the port is taken; set `metrics.listen` to another address, or to \"\" to switch the endpoint off"
    )]
    Taken(SocketAddr),
    /// Anything else.
    #[error("cannot serve metrics on {0}")]
    Listen(SocketAddr, #[source] io::Error),
}

/// The `/metrics` endpoint.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Opens the endpoint, so that a taken port is noticed at the start.
    ///
    /// # Errors
    /// [`ServerError`] if the address cannot be used.
    pub async fn bind(address: SocketAddr) -> Result<Self, ServerError> {
        match TcpListener::bind(address).await {
            Ok(listener) => Ok(Self { listener }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(ServerError::Taken(address)),
            Err(error) => Err(ServerError::Listen(address, error)),
        }
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// If the socket cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `shutdown`, then lets running answers finish.
    pub async fn run<P, F>(self, provider: P, shutdown: CancellationToken)
    where
        P: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Snapshot> + Send,
    {
        let provider = Arc::new(provider);
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        let tasks = TaskTracker::new();
        loop {
            let accepted = async {
                // The semaphore is never closed.
                let slot = Arc::clone(&slots).acquire_owned().await.ok();
                (slot, self.listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let provider = Arc::clone(&provider);
                    tasks.spawn(async move {
                        let _slot = slot;
                        // A client that gives up or is too slow is nobody's concern but its own.
                        let _ = time::timeout(CONNECTION_TIMEOUT, answer(stream, &*provider)).await;
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "metrics connection not accepted");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }
}

async fn answer<P, F>(stream: TcpStream, provider: &P) -> hyper::Result<()>
where
    P: Fn() -> F + Sync,
    F: Future<Output = Snapshot> + Send,
{
    let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
        Ok::<_, Infallible>(respond(request.method(), request.uri().path(), provider).await)
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn respond<P, F>(method: &Method, path: &str, provider: &P) -> Response<Full<Bytes>>
where
    P: Fn() -> F,
    F: Future<Output = Snapshot>,
{
    if path != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "not found; try /metrics\n");
    }
    if method != Method::GET && method != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match render(&provider().await) {
        Ok(text) => {
            let mut response = Response::new(Full::new(Bytes::from(text)));
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                header::HeaderValue::from_static(CONTENT_TYPE),
            );
            response
        }
        Err(error) => {
            tracing::error!(%error, "metrics not rendered");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "cannot render the metrics\n")
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::metrics::render::tests::snapshot;

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn serves_the_text_and_nothing_else_until_shutdown() {
        let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = server.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(server.run(|| async { snapshot() }, shutdown.clone()));

        let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        assert_eq!(body, render(&snapshot()).unwrap());

        for (request, status) in [
            ("HEAD /metrics HTTP/1.1", "200"),
            ("GET / HTTP/1.1", "404"),
            ("GET /metrics/x HTTP/1.1", "404"),
            ("POST /metrics HTTP/1.1", "405"),
        ] {
            let answer = ask(
                address,
                &format!("{request}\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
            )
            .await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request}: {answer}"
            );
        }

        let taken = Server::bind(address).await.unwrap_err();
        assert!(matches!(taken, ServerError::Taken(_)), "{taken:?}");
        assert!(taken.to_string().contains("the port is taken"), "{taken}");

        shutdown.cancel();
        running.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn clients_that_say_nothing_do_not_keep_others_out() {
        let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = server.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(server.run(|| async { snapshot() }, shutdown.clone()));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS * 2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        shutdown.cancel();
        running.await.unwrap();
    }
}
