//! The routes: HTTP to [`Service`] and back.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    ApiError, ErrorKind, Limits, Service,
    error::ErrorBody,
    stream::{Held, capture, follow},
    types::{
        Access, AllowList, BanFilter, BanList, Mode, ModeRequest, Outcomes, SchemaVersion, Targeted, TopQuery,
    },
};

/// The only route with a large body.
pub(super) const IMPORT: &str = "/v1/bans/import";

/// A route that reads and is yet for those alone who may write: frames hold what customers say.
pub(super) const DROPS: &str = "/v1/drops";

/// Tells whether the client may change things, so that it need not try.
pub(super) const ACCESS: &str = "/v1/access";

/// Sources and bans of one answer at most.
const TOP: usize = 1_000;

/// How long a client waits for its turn to get a large answer.
const LARGE_ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Packets of one capture at most.
const CAPTURED: u64 = 1_000_000;

/// Events kept for those who ask for the latest.
const RECENT_EVENTS: usize = 100;

/// What the handlers share.
struct Shared {
    service: Arc<dyn Service>,
    followers: Arc<Semaphore>,
    captures: Arc<Semaphore>,
    large_answers: Arc<Semaphore>,
    shutdown: CancellationToken,
}

type Context = State<Arc<Shared>>;
type Answer = Result<Response, Failure>;

/// An [`ApiError`] as a response.
pub(super) struct Failure(pub(super) ApiError);

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json(status, error_json(self.0))
    }
}

pub(super) fn error_json(error: ApiError) -> String {
    // Strings and numbers only: this cannot fail.
    serde_json::to_string(&ErrorBody::from(error)).unwrap_or_default()
}

fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}

pub(super) fn router(service: Arc<dyn Service>, limits: &Limits, shutdown: CancellationToken) -> Router {
    let shared = Arc::new(Shared {
        service,
        followers: Arc::new(Semaphore::new(limits.followers)),
        captures: Arc::new(Semaphore::new(limits.captures)),
        large_answers: Arc::new(Semaphore::new(limits.large_answers)),
        shutdown,
    });
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/health", get(health))
        .route("/v1/bans", get(list).post(ban))
        .route("/v1/bans/check", get(check))
        .route("/v1/bans/remove", post(unban))
        .route(IMPORT, post(import))
        .route("/v1/allow", get(allowed).post(allow))
        .route("/v1/allow/remove", post(disallow))
        .route("/v1/top", get(top))
        .route(ACCESS, get(access))
        .route("/v1/events", get(events))
        .route(DROPS, get(drops))
        .route("/v1/mode", post(set_mode))
        .route("/v1/config", get(config))
        .route("/v1/config/reload", post(reload))
        .fallback(|| async { Failure(ApiError::not_found("there is no such path in this API")) })
        .method_not_allowed_fallback(|| async {
            Failure(ApiError::usage("this path does not take this method"))
        })
        // The server has read the body within its own limits by now; axum's would be 2 MB for an import, too.
        .layer(DefaultBodyLimit::disable())
        .with_state(shared)
}

impl Shared {
    /// Runs `work` where it may block, serialisation included: a list of half a million bans is work, too.
    async fn call<T, F>(&self, work: F) -> Result<Vec<u8>, ApiError>
    where
        T: Serialize,
        F: FnOnce(&dyn Service) -> Result<T, ApiError> + Send + 'static,
    {
        let service = Arc::clone(&self.service);
        let task = tokio::task::spawn_blocking(move || {
            let answer = work(service.as_ref())?;
            serde_json::to_vec(&answer)
                .map_err(|error| ApiError::internal(format!("cannot write the answer: {error}")))
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a request on the control socket failed");
            Err(ApiError::internal(
                "the daemon failed to carry out the request; its log says more",
            ))
        })
    }

    async fn answer<T, F>(&self, work: F) -> Answer
    where
        T: Serialize,
        F: FnOnce(&dyn Service) -> Result<T, ApiError> + Send + 'static,
    {
        Ok(json(StatusCode::OK, self.call(work).await?))
    }
}

/// Reads a request body; the content type does not matter, so that plain `curl -d` works.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::usage(format!("the request body is not what this path takes: {error}")))
}

fn parameters<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query.map(|Query(parameters)| parameters).map_err(|error| {
        ApiError::usage(format!(
            "the query is not what this path takes: {}",
            error.body_text()
        ))
    })
}

async fn status(State(shared): Context) -> Answer {
    shared.answer(|service| service.status()).await
}

async fn health(State(shared): Context) -> Answer {
    let (healthy, body) = {
        let service = Arc::clone(&shared.service);
        let task = tokio::task::spawn_blocking(move || service.health());
        let health = task
            .await
            .unwrap_or_else(|_| Err(ApiError::internal("the health check failed")))?;
        (
            health.healthy,
            serde_json::to_vec(&health).map_err(|error| ApiError::internal(error.to_string()))?,
        )
    };
    let status = if healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok(json(status, body))
}

async fn list(State(shared): Context, query: Result<Query<BanFilter>, QueryRejection>) -> Answer {
    let filter = parameters(query)?;
    let turn = timeout(
        LARGE_ANSWER_WAIT,
        Arc::clone(&shared.large_answers).acquire_owned(),
    )
    .await;
    let permit: OwnedSemaphorePermit = match turn {
        Ok(Ok(permit)) => permit,
        _ => {
            return Err(Failure(ApiError::new(
                ErrorKind::Busy,
                "too many clients read the ban list at once",
            )));
        }
    };
    let body = shared
        .call(move |service| {
            Ok(BanList {
                schema_version: SchemaVersion,
                bans: service.bans(&filter)?,
            })
        })
        .await?;
    Ok(json(
        StatusCode::OK,
        Body::new(Held::new(Bytes::from(body), permit)),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckQuery {
    ip: IpAddr,
}

async fn check(State(shared): Context, query: Result<Query<CheckQuery>, QueryRejection>) -> Answer {
    let CheckQuery { ip } = parameters(query)?;
    shared.answer(move |service| service.check(ip)).await
}

async fn ban(State(shared): Context, body: Bytes) -> Answer {
    shared
        .answer(move |service| targeted(service, |service| Ok(service.ban(&parse(&body)?)?.into())))
        .await
}

async fn unban(State(shared): Context, body: Bytes) -> Answer {
    shared
        .answer(move |service| targeted(service, |service| service.unban(&parse(&body)?)))
        .await
}

async fn import(State(shared): Context, body: Bytes) -> Answer {
    shared.answer(move |service| service.import(&parse(&body)?)).await
}

async fn allowed(State(shared): Context) -> Answer {
    shared
        .answer(|service| {
            Ok(AllowList {
                schema_version: SchemaVersion,
                allow: service.allowed()?,
            })
        })
        .await
}

async fn allow(State(shared): Context, body: Bytes) -> Answer {
    shared
        .answer(move |service| targeted(service, |service| service.allow(&parse(&body)?)))
        .await
}

async fn disallow(State(shared): Context, body: Bytes) -> Answer {
    shared
        .answer(move |service| targeted(service, |service| Ok(service.disallow(&parse(&body)?)?.into())))
        .await
}

fn targeted<T>(
    service: &dyn Service,
    work: impl FnOnce(&dyn Service) -> Result<Outcomes<T>, ApiError>,
) -> Result<Targeted<T>, ApiError> {
    let Outcomes { results, not_saved } = work(service)?;
    let mode: Mode = service.mode();
    Ok(Targeted {
        schema_version: SchemaVersion,
        mode,
        results,
        not_saved,
    })
}

async fn top(State(shared): Context, query: Result<Query<TopQuery>, QueryRejection>) -> Answer {
    let query = parameters(query)?;
    let query = TopQuery {
        limit: query.limit.min(TOP),
        ..query
    };
    shared.answer(move |service| service.top(query)).await
}

/// Only who may change things gets here.
async fn access() -> Answer {
    let access = Access {
        schema_version: SchemaVersion,
        may_change: true,
    };
    let body = serde_json::to_vec(&access).map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(json(StatusCode::OK, body))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct EventsQuery {
    follow: bool,
    limit: usize,
}

impl Default for EventsQuery {
    fn default() -> Self {
        Self {
            follow: false,
            limit: RECENT_EVENTS,
        }
    }
}

async fn events(State(shared): Context, query: Result<Query<EventsQuery>, QueryRejection>) -> Answer {
    let EventsQuery { follow: stay, limit } = parameters(query)?;
    let permit = if stay {
        let Ok(permit) = Arc::clone(&shared.followers).try_acquire_owned() else {
            return Err(Failure(ApiError::new(
                ErrorKind::Busy,
                "too many clients follow the events at once",
            )));
        };
        Some(permit)
    } else {
        None
    };
    // Before the latest events are read, so that none falls between.
    let feed = shared.service.subscribe();
    let service = Arc::clone(&shared.service);
    let recent = tokio::task::spawn_blocking(move || service.recent_events(limit))
        .await
        .unwrap_or_else(|_| Err(ApiError::internal("the events cannot be read")))?;
    let body = match permit {
        Some(permit) => Body::new(follow(recent, feed, permit, shared.shutdown.clone())),
        None => Body::from(super::stream::lines(&recent)),
    };
    Ok((
        StatusCode::OK,
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        body,
    )
        .into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DropsQuery {
    limit: u64,
}

async fn drops(State(shared): Context, query: Result<Query<DropsQuery>, QueryRejection>) -> Answer {
    let DropsQuery { limit } = parameters(query)?;
    if !(1..=CAPTURED).contains(&limit) {
        return Err(Failure(ApiError::usage(format!(
            "`limit` is {limit}, and a capture has between 1 and {CAPTURED} packets"
        ))));
    }
    let Ok(permit) = Arc::clone(&shared.captures).try_acquire_owned() else {
        return Err(Failure(ApiError::new(
            ErrorKind::Busy,
            "too many clients capture dropped packets at once",
        )));
    };
    let service = Arc::clone(&shared.service);
    let feed = tokio::task::spawn_blocking(move || service.drops())
        .await
        .unwrap_or_else(|_| Err(ApiError::internal("dropped packets cannot be captured")))?;
    let body = Body::new(capture(feed, limit, permit, shared.shutdown.clone()));
    Ok((
        StatusCode::OK,
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        body,
    )
        .into_response())
}

async fn set_mode(State(shared): Context, body: Bytes) -> Answer {
    shared
        .answer(move |service| service.set_mode(parse::<ModeRequest>(&body)?.mode))
        .await
}

async fn config(State(shared): Context) -> Answer {
    shared.answer(|service| service.config()).await
}

async fn reload(State(shared): Context) -> Answer {
    shared.answer(|service| service.reload()).await
}
