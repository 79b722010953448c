//! What the service manager is told (`sd_notify(3)`). Without one, nothing is sent.

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::daemon::ControlHandle;

/// Everything is attached and the socket answers.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The stop has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot reach the service manager");
    }
}

/// Tells the watchdog, if there is one, that the daemon still does its work: the controller's lock was had.
pub(super) async fn watchdog(handle: ControlHandle, shutdown: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut ticks = tokio::time::interval(limit / 3);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let handle = handle.clone();
        let alive = tokio::task::spawn_blocking(move || handle.with(|_, _| ()));
        if alive.await.is_ok() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}
