//! Why a request was not carried out.

use serde::{Deserialize, Serialize};

use super::types::SchemaVersion;

/// The kind of a failure: the `code` of the JSON, and by it the HTTP status and the exit code of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// Understood, and not done to keep somebody from being locked out: allow-listed, own address, prefix too wide.
    Refused,
    /// A table has no room.
    Full,
    /// The request makes no sense.
    Usage,
    /// There is no such thing.
    NotFound,
    /// The peer may not do this.
    Denied,
    /// Too many clients at once.
    Busy,
    /// The daemon failed.
    #[serde(other)]
    Internal,
}

impl ErrorKind {
    /// The HTTP status that carries it.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Refused => 409,
            Self::Full => 507,
            Self::Usage => 400,
            Self::NotFound => 404,
            Self::Denied => 403,
            Self::Busy => 503,
            Self::Internal => 500,
        }
    }
}

/// A failure, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind.
    pub kind: ErrorKind,
    /// What happened: one sentence that names the argument at fault.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl ApiError {
    /// A failure without a hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// See [`ErrorKind::Refused`].
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    /// See [`ErrorKind::Full`].
    pub fn full(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Full, message)
    }

    /// See [`ErrorKind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// See [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// See [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }
}

/// [`ApiError`] as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) schema_version: SchemaVersion,
    pub(super) error: ErrorDetail,
}

/// The inner part of [`ErrorBody`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ErrorDetail {
    pub(super) code: ErrorKind,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl From<ApiError> for ErrorBody {
    fn from(error: ApiError) -> Self {
        Self {
            schema_version: SchemaVersion,
            error: ErrorDetail {
                code: error.kind,
                message: error.message,
                hint: error.hint,
            },
        }
    }
}

impl From<ErrorBody> for ApiError {
    fn from(body: ErrorBody) -> Self {
        Self {
            kind: body.error.code,
            message: body.error.message,
            hint: body.error.hint,
        }
    }
}
