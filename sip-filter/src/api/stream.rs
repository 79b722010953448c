//! Answers that are not made in one piece.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    Feed,
    types::{DroppedPacket, Event},
};

/// Chunks of an answer that wait for a client before its events are counted as missed.
const CHUNKS_AHEAD: usize = 16;

/// Bytes handed to the connection at a time: it asks for more only when these are on their way.
const CHUNK: usize = 64 << 10;

/// A body that holds a permit until all but its last chunk is sent.
pub(super) struct Held {
    data: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl Held {
    pub(super) fn new(data: Bytes, permit: OwnedSemaphorePermit) -> Self {
        Self {
            data,
            _permit: permit,
        }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.data.is_empty() {
            return Poll::Ready(None);
        }
        let chunk = self.data.len().min(CHUNK);
        Poll::Ready(Some(Ok(Frame::data(self.data.split_to(chunk)))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.len() as u64)
    }
}

/// Events as they happen.
pub(super) struct Follow {
    chunks: mpsc::Receiver<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl Body for Follow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.chunks
            .poll_recv(cx)
            .map(|chunk| chunk.map(|data| Ok(Frame::data(data))))
    }
}

/// One JSON object per line.
pub(super) fn lines<T: Serialize>(objects: &[T]) -> Vec<u8> {
    let mut text = Vec::new();
    for event in objects {
        // Strings, numbers and times after 1970 only: this does not fail; and if it did, the line is left out whole.
        if let Ok(line) = serde_json::to_vec(event) {
            text.extend_from_slice(&line);
            text.push(b'\n');
        }
    }
    text
}

/// The `recent` events, then those that arrive, until the client goes or the daemon stops.
pub(super) fn follow(
    recent: Vec<Event>,
    feed: Feed<Event>,
    permit: OwnedSemaphorePermit,
    shutdown: CancellationToken,
) -> Follow {
    let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sender.closed() => {}
            () = forward(recent, feed, &sender) => {}
        }
    });
    Follow {
        chunks,
        _permit: permit,
    }
}

async fn forward(mut recent: Vec<Event>, mut feed: Feed<Event>, sender: &mpsc::Sender<Bytes>) {
    // Sent even if empty: it makes the head of the answer go out at once.
    if sender.send(lines(&recent).into()).await.is_err() {
        return;
    }
    loop {
        let event = match feed.recv().await {
            // The subscription is older than `recent`: what is in both has been sent.
            Ok(event) if recent.contains(&event) => continue,
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(count)) => Event::new(
                std::time::SystemTime::now(),
                "missed",
                format!("{count} events are missing here: this client reads too slowly"),
            ),
            Err(broadcast::error::RecvError::Closed) => return,
        };
        recent.clear();
        if sender.send(lines(&[event]).into()).await.is_err() {
            return;
        }
    }
}

/// Dropped packets as they come, `limit` of them at most, until the client goes or the daemon stops.
pub(super) fn capture(
    feed: Feed<DroppedPacket>,
    limit: u64,
    permit: OwnedSemaphorePermit,
    shutdown: CancellationToken,
) -> Follow {
    let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sender.closed() => {}
            () = copy(feed, limit, &sender) => {}
        }
    });
    Follow {
        chunks,
        _permit: permit,
    }
}

async fn copy(mut feed: Feed<DroppedPacket>, limit: u64, sender: &mpsc::Sender<Bytes>) {
    // Makes the head of the answer go out at once.
    if sender.send(Bytes::new()).await.is_err() {
        return;
    }
    let (mut sent, mut missed) = (0, 0);
    while sent < limit {
        match feed.recv().await {
            Ok(packet) => {
                let packet = DroppedPacket {
                    missed: packet.missed + std::mem::take(&mut missed),
                    ..packet
                };
                if sender.send(lines(&[packet]).into()).await.is_err() {
                    return;
                }
                sent += 1;
            }
            Err(broadcast::error::RecvError::Lagged(count)) => missed += count,
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}
