//! The two copies of the kernel's configuration and the word that says which is in force.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use aya::maps::{Array, MapData};
use sip_filter_common::abi::{Config, Control, flags};

use super::{DataplaneError, memory::Words, program::PodConfig, quiet};

/// A packet that began under the copy now inactive may still read it; after this long, it certainly has left.
const SURELY_OVER: Duration = Duration::from_secs(1);

/// No packet takes this long, unless the processor itself is stopped: for kernels that do not tell ([`quiet`]).
const GRACE: Duration = Duration::from_millis(2);

#[derive(Clone)]
pub(crate) struct ConfigSwitch(Arc<Mutex<State>>);

struct State {
    configs: Array<MapData, PodConfig>,
    control: Words,
    base: Config,
    table_flags: u64,
    /// `None` before the first time: nobody reads either copy yet.
    switched: Option<Instant>,
}

impl ConfigSwitch {
    pub(crate) fn new(
        configs: Array<MapData, PodConfig>,
        control: Words,
        base: Config,
    ) -> Result<Self, DataplaneError> {
        let mut state = State {
            configs,
            control,
            base,
            table_flags: 0,
            switched: None,
        };
        state.write().map_err(|source| DataplaneError::Write {
            what: "configuration",
            source,
        })?;
        Ok(Self(Arc::new(Mutex::new(state))))
    }

    /// Puts another configuration in force; the flags that follow from the tables stay.
    pub(crate) fn set_config(&self, base: Config) -> io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.base = base;
        state.write()
    }

    /// Changes the flags that follow from the tables.
    pub(crate) fn flags_setter(&self) -> impl FnMut(u64) -> io::Result<()> + Send + use<> {
        let switch = self.clone();
        move |table_flags| {
            let mut state = switch.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.table_flags = table_flags;
            state.write()
        }
    }
}

impl State {
    fn write(&mut self) -> io::Result<()> {
        if self.switched.is_some_and(|then| then.elapsed() < SURELY_OVER) {
            quiet::wait(GRACE);
        }
        let active = self.control.word(0);
        let next = (active.load(Ordering::SeqCst) & Control::INDEX) ^ Control::INDEX;
        let config = Config {
            flags: self.base.flags & (flags::SIMULATE | flags::CAPTURE_DROPS) | self.table_flags,
            ..self.base
        };
        let index = u32::from(next == 1);
        self.configs
            .set(index, PodConfig(config), 0)
            .map_err(io::Error::other)?;
        let all = if config.flags & flags::ALL == 0 {
            0
        } else {
            Control::ALL
        };
        active.store(next | all, Ordering::SeqCst);
        self.switched = Some(Instant::now());
        Ok(())
    }
}
