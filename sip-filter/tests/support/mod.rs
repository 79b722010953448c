//! A daemon without a kernel: the API server over a service that remembers what it is told.

pub(crate) mod fake;

use std::{path::PathBuf, sync::Arc};

use fake::Fake;
use sip_filter::api::{
    Limits,
    access::Access,
    server::serve_within,
    socket::{self, SocketGuard},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A server that runs until it is dropped or stopped.
pub(crate) struct Daemon {
    pub(crate) socket: PathBuf,
    pub(crate) service: Arc<Fake>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    _guard: SocketGuard,
    _directory: tempfile::TempDir,
}

impl Daemon {
    pub(crate) fn start(limits: Limits) -> Self {
        Self::start_with_admins(limits, None)
    }

    pub(crate) fn start_with_admins(limits: Limits, admin_group: Option<&str>) -> Self {
        Self::start_for(limits, None, admin_group)
    }

    pub(crate) fn start_for(limits: Limits, socket_group: Option<&str>, admin_group: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("api.sock");
        let (listener, guard) = socket::bind(&socket, socket_group).unwrap();
        let service = Arc::new(Fake::default());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve_within(
            listener,
            Arc::clone(&service) as Arc<dyn sip_filter::api::Service>,
            Access::new(admin_group).unwrap(),
            limits,
            shutdown.clone(),
        ));
        Self {
            socket,
            service,
            shutdown,
            task,
            _guard: guard,
            _directory: directory,
        }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}
