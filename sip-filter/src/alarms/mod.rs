//! Tells people what is wrong: follows the [`Conditions`](crate::conditions::Conditions) and reports those that last to
//! the receivers of `[alarms]`, and that they are over.
//!
//! An alarm is a state, not a message: a receiver that was out of reach gets the latest one of each condition when it
//! is back, and after a restart whatever is wrong is reported anew. Receivers work in threads of their own, so that a
//! slow one holds up neither the daemon nor another receiver.

mod alarm;
mod hold;
mod outbox;
mod receivers;
mod run;
mod worker;

pub use alarm::{Alarm, Status};
pub use receivers::{DeliveryError, Receiver};
pub use run::{Settings, run};
pub use worker::{Counts, Delivered};
