//! Where the events come from.

use std::{fmt, pin::Pin};

use tokio::sync::broadcast::{self, error::RecvError};

use super::types::Event;

/// Events from the moment of subscription on: a broadcast receiver of whatever the service keeps, and how that becomes
/// an [`Event`].
pub struct Feed(Box<dyn Source>);

type Received<'a> = Pin<Box<dyn Future<Output = Result<Event, RecvError>> + Send + 'a>>;

trait Source: Send {
    fn recv(&mut self) -> Received<'_>;
}

struct Mapped<T, F> {
    receiver: broadcast::Receiver<T>,
    convert: F,
}

impl<T, F> Source for Mapped<T, F>
where
    T: Clone + Send + 'static,
    F: FnMut(T) -> Event + Send,
{
    fn recv(&mut self) -> Received<'_> {
        Box::pin(async { self.receiver.recv().await.map(&mut self.convert) })
    }
}

impl Feed {
    /// From a receiver and a conversion.
    pub fn new<T, F>(receiver: broadcast::Receiver<T>, convert: F) -> Self
    where
        T: Clone + Send + 'static,
        F: FnMut(T) -> Event + Send + 'static,
    {
        Self(Box::new(Mapped { receiver, convert }))
    }

    pub(super) async fn recv(&mut self) -> Result<Event, RecvError> {
        self.0.recv().await
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}
