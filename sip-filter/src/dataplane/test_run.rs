//! Running the kernel program on packets of our own (`BPF_PROG_TEST_RUN`), as tests and benchmarks do.

use std::sync::atomic::Ordering;

use aya::{
    TestRun as _, TestRunOptions,
    maps::{MapData, RingBuf},
};
use sip_filter_common::abi::EventHeader;

use super::{
    DataplaneError, LoadedProgram,
    program::{classifier, xdp},
};

/// The events of a program that is only run on test packets.
pub struct EventRing(RingBuf<MapData>);

impl EventRing {
    /// Takes out all events there are, oldest first.
    pub fn take(&mut self) -> Vec<(EventHeader, Vec<u8>)> {
        let mut events = Vec::new();
        while let Some(item) = self.0.next() {
            events.extend(super::events::parse(&item).map(|(header, payload)| (header, payload.to_vec())));
        }
        events
    }
}

impl LoadedProgram {
    /// Sets the clock of a program loaded with [`super::LoadOptions::test_clock`], nanoseconds.
    pub fn set_clock(&self, now: u64) {
        self.control.word(1).store(now, Ordering::SeqCst);
    }

    /// Runs the program on one frame and returns its `xdp_action`.
    ///
    /// # Errors
    /// If the kernel refuses, as it does for frames shorter than an Ethernet header.
    pub fn test_run(&mut self, frame: &[u8]) -> Result<u32, DataplaneError> {
        self.test_run_with(frame, None)
    }

    /// The same with a frame of which only the first `linear` bytes can be read directly, as that of a driver that
    /// keeps long frames in several buffers.
    ///
    /// # Errors
    /// If the kernel refuses, as those before 6.18 do.
    pub fn test_run_split(&mut self, frame: &[u8], linear: u32) -> Result<u32, DataplaneError> {
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, linear, 0, 0, 0, 0].map(u32::to_ne_bytes);
        self.test_run_with(frame, Some(context.as_flattened()))
    }

    fn test_run_with(&mut self, frame: &[u8], context: Option<&[u8]>) -> Result<u32, DataplaneError> {
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: context,
            ..TestRunOptions::default()
        };
        let result = xdp(&mut self.ebpf)?
            .test_run(options)
            .map_err(DataplaneError::program)?;
        Ok(result.return_value)
    }

    /// Runs the egress program on one frame and returns its verdict, -1 for "go on".
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn test_run_egress(&mut self, frame: &[u8]) -> Result<i32, DataplaneError> {
        let options = TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::default()
        };
        let result = classifier(&mut self.ebpf)?
            .test_run(options)
            .map_err(DataplaneError::program)?;
        Ok(result.return_value.cast_signed())
    }

    /// Opens the ring buffer of events; there should be one reader at a time.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn event_ring(&self) -> Result<EventRing, DataplaneError> {
        self.events().map(EventRing)
    }

    /// Takes the events out of the ring buffer, as they lie there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn take_events(&mut self) -> Result<Vec<(EventHeader, Vec<u8>)>, DataplaneError> {
        Ok(self.event_ring()?.take())
    }
}
