//! The detection engine, shared: the daemon feeds it, metrics ask how it is doing.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use crate::{
    bans::Target,
    daemon::Detector,
    detect::{Conclusion, DetectConfig, Engine, EngineStats, Observation, Proof, Standing},
};

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct SharedEngine(Arc<Mutex<Engine>>);

impl SharedEngine {
    pub(super) fn new(config: DetectConfig, ipv6_prefix: u8) -> Self {
        Self(Arc::new(Mutex::new(Engine::new(config, ipv6_prefix))))
    }

    pub(super) fn stats(&self) -> EngineStats {
        self.lock().stats()
    }

    /// What the engine knows of a source at a boot time.
    pub(super) fn standing(&self, target: Target, now: Duration) -> Standing {
        self.lock().standing(target, now)
    }

    fn lock(&self) -> MutexGuard<'_, Engine> {
        // A panic while it was held is a bug and was reported; detection goes on.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Detector for SharedEngine {
    fn observe(&mut self, observation: &Observation<'_>, conclusions: &mut Vec<Conclusion>) {
        self.lock().observe(observation, conclusions);
    }

    fn set_wall(&mut self, time: Duration, wall: SystemTime) {
        self.lock().set_wall(time, wall);
    }

    fn restore_offences(&mut self, target: Target, count: u32, ended: SystemTime) {
        self.lock().restore_offences(target, count, ended);
    }

    fn restore_trust(&mut self, target: Target, account: &str, until: Duration) {
        self.lock().restore_trust(target, account, until);
    }

    fn restore_proof(&mut self, target: Target, by: Proof, until: Duration) {
        self.lock().restore_proof(target, by, until);
    }

    fn forget(&mut self, target: Target) {
        self.lock().forget(target);
    }

    fn not_enforced(&mut self, target: Target, now: SystemTime) {
        self.lock().not_enforced(target, now);
    }

    fn distrust(&mut self, target: Target) {
        self.lock().distrust(target);
    }

    fn reload(&mut self, config: DetectConfig) {
        self.lock().reload(config);
    }
}
