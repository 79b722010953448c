//! Where the events and the dropped packets come from.

use std::{fmt, pin::Pin};

use tokio::sync::broadcast::{self, error::RecvError};

/// What happens from the moment of subscription on: a broadcast receiver of whatever the service keeps, and how that
/// becomes an `E`.
pub struct Feed<E>(Box<dyn Source<E>>);

type Received<'a, E> = Pin<Box<dyn Future<Output = Result<E, RecvError>> + Send + 'a>>;

trait Source<E>: Send {
    fn recv(&mut self) -> Received<'_, E>;
}

struct Mapped<T, F, G> {
    receiver: broadcast::Receiver<T>,
    convert: F,
    _guard: G,
}

impl<T, F, G, E> Source<E> for Mapped<T, F, G>
where
    T: Clone + Send + 'static,
    F: FnMut(T) -> E + Send,
    G: Send,
{
    fn recv(&mut self) -> Received<'_, E> {
        Box::pin(async { self.receiver.recv().await.map(&mut self.convert) })
    }
}

impl<E: 'static> Feed<E> {
    /// From a receiver and a conversion.
    pub fn new<T, F>(receiver: broadcast::Receiver<T>, convert: F) -> Self
    where
        T: Clone + Send + 'static,
        F: FnMut(T) -> E + Send + 'static,
    {
        Self::holding(receiver, convert, ())
    }

    /// The same with something that lives as long as the feed.
    pub fn holding<T, F, G>(receiver: broadcast::Receiver<T>, convert: F, guard: G) -> Self
    where
        T: Clone + Send + 'static,
        F: FnMut(T) -> E + Send + 'static,
        G: Send + 'static,
    {
        Self(Box::new(Mapped {
            receiver,
            convert,
            _guard: guard,
        }))
    }

    pub(super) async fn recv(&mut self) -> Result<E, RecvError> {
        self.0.recv().await
    }
}

impl<E> fmt::Debug for Feed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}
