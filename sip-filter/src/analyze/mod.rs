//! `sip-filter analyze`: what the filter would have done with a capture.
//!
//! The packets go through the same pipeline, the same detection engine and the same kind of tables as live ones, in
//! the capture's own time: a ban holds for the packets after it. Reading the file is the only input or output.

mod capture;
mod link;
mod report;
mod run;

pub use self::{
    capture::{Capture, CaptureError, Frame},
    report::{AlarmReport, BanReport, Report, SCHEMA_VERSION, SourceReport},
    run::{Options, Plane, analyze},
};
