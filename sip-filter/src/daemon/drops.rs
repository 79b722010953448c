//! Copies of dropped frames, for whoever captures them. The kernel program makes them only while somebody does.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sip_filter_common::{abi::EventKind, verdict::Reason};
use tokio::sync::broadcast;

use super::{ControlError, ControlHandle, PacketEvent, chain};
use crate::bans::Clock;

/// Frames a client may lag behind before it misses some, which it is told. 1,024 of 1 KiB at most.
const LAG: usize = 1_024;

/// A frame that was dropped, or would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedFrame {
    /// When.
    pub time: SystemTime,
    /// Why.
    pub reason: Reason,
    /// Its length on the wire.
    pub length: u16,
    /// Its first bytes, from the Ethernet header on.
    pub frame: Bytes,
}

/// Hands frames to all who capture.
#[derive(Clone, Debug)]
pub(super) struct Drops(broadcast::Sender<DroppedFrame>);

impl Default for Drops {
    fn default() -> Self {
        Self(broadcast::Sender::new(LAG))
    }
}

impl Drops {
    /// Takes an event if it is a copy of a dropped frame; tells whether it was.
    pub(super) fn take(&self, event: &PacketEvent, clock: Clock) -> bool {
        let header = &event.header;
        if EventKind::from_number(header.kind) != Some(EventKind::Dropped) {
            return false;
        }
        if let Some(reason) = Reason::from_number(header.class) {
            // Nobody captures any more: nothing to do.
            let _ = self.0.send(DroppedFrame {
                time: clock.to_wall(Duration::from_nanos(header.time)),
                reason,
                length: header.payload_len.max(header.captured),
                frame: event.payload.clone(),
            });
        }
        true
    }
}

/// Keeps the copies coming; when the last one is dropped, the kernel program makes no more.
#[derive(Debug)]
pub struct Capture(ControlHandle);

impl ControlHandle {
    /// Asks for copies of dropped frames. Blocks.
    ///
    /// # Errors
    /// [`ControlError`] if an interface does not take it.
    pub fn capture_drops(&self) -> Result<(broadcast::Receiver<DroppedFrame>, Capture), ControlError> {
        let frames = self.drops.0.subscribe();
        self.with(|controller, _| controller.configure(controller.config.clone(), controller.captures + 1))?;
        Ok((frames, Capture(self.clone())))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let handle = self.0.clone();
        let end = move || {
            handle.with(|controller, _| {
                let left = controller.captures.saturating_sub(1);
                if let Err(error) = controller.configure(controller.config.clone(), left) {
                    tracing::warn!(
                        error = chain(&error),
                        "the kernel program goes on copying dropped frames"
                    );
                }
            });
        };
        // It waits for the controller, which an asynchronous task must not.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(end)),
            Err(_) => end(),
        }
    }
}
