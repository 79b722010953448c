//! What one client, or all of them, may take from the daemon.

use std::time::Duration;

/// Bounds that keep slow or hostile clients from stalling the daemon or its operators.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Of these, how many peers without write access may hold together: the rest is kept so that an operator gets
    /// in whatever they do.
    pub reader_connections: usize,
    /// Followers of the event stream at once.
    pub followers: usize,
    /// Clients that capture dropped packets at once.
    pub captures: usize,
    /// Answers that may hold the whole ban list in memory at once.
    pub large_answers: usize,
    /// Time to send the head of a request.
    pub header_timeout: Duration,
    /// Time to send the body of a request.
    pub body_timeout: Duration,
    /// How long a client may take no byte of an answer that waits for it.
    pub write_timeout: Duration,
    /// Bytes of the head of a request.
    pub head_bytes: usize,
    /// Bytes of a request body.
    pub body_bytes: usize,
    /// Bytes of the body of an import.
    pub import_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            reader_connections: 48,
            followers: 16,
            captures: 4,
            large_answers: 4,
            header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            head_bytes: 16 << 10,
            body_bytes: 1 << 20,
            import_bytes: 64 << 20,
        }
    }
}
