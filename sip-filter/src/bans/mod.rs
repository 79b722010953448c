//! The ban list: who is banned, since when, why and by whom. It is the truth; the kernel tables are its image.

mod model;

pub use model::{Ban, Evidence, Origin, Scope, Target};
