//! Accepts connections, within [`Limits`], and answers one request on each.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{Router, body::Body, http, response::IntoResponse};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ApiError, ErrorKind, Limits, Service,
    access::{Access, Peer, supplementary_groups},
    routes::{self, Failure},
    stall::StallGuard,
};

/// How long answers under way may take once the daemon is told to stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves the API until `shutdown`; then lets answers under way finish, for a few seconds.
pub async fn serve(
    listener: UnixListener,
    service: Arc<dyn Service>,
    access: Access,
    shutdown: CancellationToken,
) {
    serve_within(listener, service, access, Limits::default(), shutdown).await;
}

/// [`serve`] with limits other than the default.
pub async fn serve_within(
    listener: UnixListener,
    service: Arc<dyn Service>,
    access: Access,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let server = Arc::new(Server {
        router: routes::router(service, &limits, shutdown.clone()),
        access,
        limits,
        shutdown: shutdown.clone(),
        all: Arc::new(Semaphore::new(limits.connections)),
        readers: Arc::new(Semaphore::new(limits.reader_connections)),
        turned_away: Arc::new(Semaphore::new(limits.connections)),
    });
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => server.admit(stream, &tasks),
            Err(error) => {
                // Out of file descriptors, most likely: they come back when connections end, and trying again at
                // once would only burn the core.
                tracing::warn!(%error, "cannot accept a connection on the control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    if timeout(FAREWELL, tasks.wait()).await.is_err() {
        tracing::warn!("answers on the control socket are cut off: the daemon stops");
    }
}

struct Server {
    router: Router,
    access: Access,
    limits: Limits,
    shutdown: CancellationToken,
    all: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
}

impl Server {
    fn admit(self: &Arc<Self>, stream: UnixStream, tasks: &TaskTracker) {
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "the kernel does not say who connected; closing the connection");
                return;
            }
        };
        let server = Arc::clone(self);
        match self.permits(peer) {
            Some(permits) => {
                tasks.spawn(async move {
                    server.converse(stream, peer).await;
                    drop(permits);
                });
            }
            // Those who could not even be told just find the connection closed.
            None => {
                if let Ok(permit) = Arc::clone(&self.turned_away).try_acquire_owned() {
                    tasks.spawn(async move {
                        turn_away(stream).await;
                        drop(permit);
                    });
                }
            }
        }
    }

    fn permits(&self, peer: Peer) -> Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)> {
        let reader = if self.access.is_owner(peer) {
            None
        } else {
            Some(Arc::clone(&self.readers).try_acquire_owned().ok()?)
        };
        Some((Arc::clone(&self.all).try_acquire_owned().ok()?, reader))
    }

    async fn converse(self: Arc<Self>, stream: UnixStream, peer: Peer) {
        let io = TokioIo::new(StallGuard::new(stream, self.limits.write_timeout));
        let server = Arc::clone(&self);
        let service = service_fn(move |request| {
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(server.answer(request, peer).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(self.limits.head_bytes)
            // One request per connection: connecting costs nothing here, and nobody can sit on an idle one.
            .keep_alive(false)
            .serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(uid = peer.uid, pid = peer.pid, %error, "a connection on the control socket failed");
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let reads = matches!(*request.method(), http::Method::GET | http::Method::HEAD);
        let what = format!("{} {}", request.method(), request.uri().path());
        let response = match self.prepare(request, peer, reads).await {
            // The router cannot fail, it answers.
            Ok(request) => {
                match hyper::service::Service::call(&TowerToHyperService::new(self.router.clone()), request)
                    .await
                {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
            Err(error) => Failure(error).into_response(),
        };
        let status = response.status().as_u16();
        if reads {
            tracing::debug!(uid = peer.uid, pid = peer.pid, status, "{what}");
        } else {
            tracing::info!(uid = peer.uid, pid = peer.pid, status, "{what}");
        }
        response
    }

    /// Checks the peer's rights before its body is kept, then reads it, within limits. Every request passes here, so
    /// no route can forget it.
    async fn prepare(
        &self,
        request: Request<Incoming>,
        peer: Peer,
        reads: bool,
    ) -> Result<Request<Full<Bytes>>, ApiError> {
        let (head, mut body) = request.into_parts();
        let limit = if head.uri.path() == routes::IMPORT {
            self.limits.import_bytes
        } else if reads {
            0
        } else {
            self.limits.body_bytes
        };
        let allowed = if reads && ![routes::DROPS, routes::ACCESS].contains(&head.uri.path()) {
            Ok(())
        } else {
            self.require_write(peer).await
        };
        let read = async {
            let kept = match allowed {
                Ok(()) => read_body(&mut body, limit).await,
                Err(error) => Err(error),
            };
            if kept.is_err() {
                // Closing a connection with unread data takes the answer away from a client that still sends.
                discard(&mut body, self.limits.import_bytes).await;
            }
            kept
        };
        match timeout(self.limits.body_timeout, read).await {
            Ok(body) => Ok(Request::from_parts(head, Full::new(body?))),
            Err(_) => Err(ApiError::usage(format!(
                "the request body did not arrive within {} seconds",
                self.limits.body_timeout.as_secs()
            ))),
        }
    }

    async fn require_write(&self, peer: Peer) -> Result<(), ApiError> {
        if self.access.is_owner(peer) {
            return Ok(());
        }
        let access = self.access.clone();
        let refusal = tokio::task::spawn_blocking(move || {
            (!access.may_write(peer, supplementary_groups)).then(|| access.refusal(peer))
        })
        .await
        .map_err(|_| ApiError::internal("the look-up of your groups failed"))?;
        refusal.map_or(Ok(()), |sentence| Err(ApiError::new(ErrorKind::Denied, sentence)))
    }
}

/// The body, if it has at most `limit` bytes.
async fn read_body(body: &mut Incoming, limit: usize) -> Result<Bytes, ApiError> {
    let mut kept = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::usage(format!("the request body is broken: {error}")))?;
        // Trailers are of no interest.
        let Ok(data) = frame.into_data() else { continue };
        if kept.len() + data.len() > limit {
            return Err(ApiError::usage(format!(
                "the request body is longer than the {limit} bytes this request may have"
            )));
        }
        kept.extend_from_slice(&data);
    }
    Ok(kept.freeze())
}

/// Reads and forgets what is left of a body, up to `most` bytes.
async fn discard(body: &mut Incoming, most: usize) {
    let mut seen = 0;
    while seen < most {
        match body.frame().await {
            Some(Ok(frame)) => seen += frame.data_ref().map_or(0, Bytes::len),
            _ => return,
        }
    }
}

/// Tells a client that there is no room for it.
async fn turn_away(mut stream: UnixStream) {
    let body = routes::error_json(
        ApiError::new(
            ErrorKind::Busy,
            "the daemon serves as many clients as it can at once",
        )
        .with_hint("try again; `ss -xp src /run/sip-filter/api.sock` shows who holds the connections"),
    );
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\nretry-after: 1\r\n\r\n{body}",
        body.len()
    );
    // The request is read first, because closing a socket with unread data takes the answer away from the client.
    let mut request = [0; 4096];
    let _ = timeout(Duration::from_secs(1), async {
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_leave_room_for_operators() {
        let server = Server {
            router: Router::new(),
            access: Access::new(None).unwrap(),
            limits: Limits::default(),
            shutdown: CancellationToken::new(),
            all: Arc::new(Semaphore::new(3)),
            readers: Arc::new(Semaphore::new(2)),
            turned_away: Arc::new(Semaphore::new(0)),
        };
        let peer = |uid| Peer {
            uid,
            gid: uid,
            pid: 1,
        };
        let (root, reader) = (peer(0), peer(4_000_000));
        let held = [server.permits(reader).unwrap(), server.permits(reader).unwrap()];
        assert!(server.permits(reader).is_none());
        let operator = server.permits(root).unwrap();
        assert!(server.permits(root).is_none());
        drop(held);
        assert!(server.permits(reader).is_some());
        drop(operator);
    }
}
