//! Programs in the kernel: those we compare with, those that make traffic, and sip-filter's. Beside sip-filter's own
//! data plane, the only place that names aya.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, Pod, TestRun as _, TestRunAttrs, TestRunOptions,
    maps::{Array, MapData, PerCpuArray, PerCpuValues, ProgramArray},
    programs::{
        Xdp, loaded_programs,
        xdp::{XdpLink, XdpMode},
    },
    util::nr_cpus,
};
use aya_obj::programs::XdpAttachType;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

use super::generator::plan::{HEADS, Plan, State};

/// Frames that the kernel hands to a program at once: what a driver's receive loop takes at most.
const BATCH: u32 = 64;

/// The programs that only benchmarks load.
pub(super) struct Programs {
    ebpf: Ebpf,
    plan: Array<MapData, PodPlan>,
    heads: Array<MapData, [u64; 4]>,
    state: PerCpuArray<MapData, PodState>,
    next: ProgramArray<MapData>,
}

/// An XDP program.
pub(super) struct Program(Xdp);

/// An attached program; dropping it takes the program off.
pub(super) struct Attached {
    _link: XdpLink,
}

impl Programs {
    /// Loads the object.
    ///
    /// # Errors
    /// If it can't be read, or the kernel refuses it.
    pub(super) fn load(object: &Path) -> Result<Self> {
        let bytes = fs::read(object).with_context(|| format!("can't read {}", object.display()))?;
        let mut ebpf = Ebpf::load(&bytes).context("can't load the comparison programs")?;
        let mut map = |name: &str| ebpf.take_map(name).with_context(|| format!("no map {name}"));
        let (plan, heads, state, next) = (map("PLAN")?, map("HEAD")?, map("STATE")?, map("NEXT")?);
        for (name, program) in ebpf.programs_mut() {
            let xdp: &mut Xdp = program.try_into()?;
            xdp.load().with_context(|| format!("program {name}"))?;
        }
        Ok(Self {
            ebpf,
            plan: plan.try_into()?,
            heads: heads.try_into()?,
            state: state.try_into()?,
            next: next.try_into()?,
        })
    }

    /// One of them.
    ///
    /// # Errors
    /// If there is none of this name.
    pub(super) fn program(&self, name: &str) -> Result<Program> {
        let program = self
            .ebpf
            .program(name)
            .with_context(|| format!("no program {name}"))?;
        let xdp: &Xdp = program.try_into()?;
        Program::of(xdp.info()?.id())
    }

    /// The program that runs after a frame was varied.
    ///
    /// # Errors
    /// If the kernel refuses: both must be made for frames in several buffers.
    pub(super) fn set_next(&mut self, program: &Program) -> Result<()> {
        Ok(self.next.set(0, program.0.fd()?, 0)?)
    }

    /// How frames are varied from now on, each CPU beginning at a place of its own.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn set_plan(&mut self, plan: &Plan, heads: &[[u64; 4]]) -> Result<()> {
        self.plan.set(0, PodPlan(*plan), 0)?;
        if plan.head_at != 0 {
            ensure!(heads.len() == HEADS as usize, "each head needs its variant");
        }
        for (index, head) in (0..).zip(heads) {
            self.heads.set(index, head, 0)?;
        }
        self.reset(plan)
    }

    /// Starts the sequences of sources and the counts anew.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn reset(&mut self, plan: &Plan) -> Result<()> {
        let cpus = nr_cpus().map_err(|(file, error)| anyhow::anyhow!("{file}: {error}"))?;
        let share = plan.sources / cpus as u64;
        let states = (0..cpus as u64).map(|cpu| {
            PodState(State {
                position: share * cpu,
                seed: 0x9e37_79b9_7f4a_7c15 ^ (cpu + 1) << 32,
                ..State::default()
            })
        });
        Ok(self
            .state
            .set(0, PerCpuValues::try_from(states.collect::<Vec<_>>())?, 0)?)
    }

    /// What all CPUs counted together.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn state(&self) -> Result<State> {
        let mut sum = State::default();
        for PodState(state) in self.state.get(&0, 0)?.iter() {
            sum.frames += state.frames;
            sum.sent += state.sent;
            sum.received += state.received;
            sum.failed += state.failed;
        }
        Ok(sum)
    }
}

impl Program {
    /// The program of this id.
    ///
    /// # Errors
    /// If it isn't loaded.
    pub(super) fn of(id: u32) -> Result<Self> {
        for info in loaded_programs() {
            // Programs of others come and go meanwhile.
            if let Ok(info) = info
                && info.id() == id
            {
                let xdp = Xdp::from_program_info(info, "".into(), XdpAttachType::Interface)?;
                return Ok(Self(xdp));
            }
        }
        anyhow::bail!("program {id} is gone")
    }

    /// Runs the program on one frame so many times (`BPF_PROG_TEST_RUN`); returns the processor time of the whole.
    ///
    /// The thread's processor time and not the clock: what other processes do meanwhile isn't counted. The kernel's own
    /// figure is of the clock, and in whole nanoseconds.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn run(&self, frame: &[u8], times: u32) -> Result<Duration> {
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: times,
            ..TestRunOptions::default()
        };
        let before = thread_time()?;
        self.0.test_run(options)?;
        Ok(thread_time()?.saturating_sub(before))
    }

    /// Runs the program on so many real frames, which it sends on; by a thread of the sender's namespace.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn send(&self, frame: &[u8], frames: u32) -> Result<()> {
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        self.0.test_run(options)?;
        Ok(())
    }

    /// Attaches it to an interface of the calling thread's namespace.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn attach(&mut self, interface: u32, generic: bool) -> Result<Attached> {
        let mode = if generic { XdpMode::Skb } else { XdpMode::Driver };
        let id = self.0.attach_to_if_index(interface, mode)?;
        Ok(Attached {
            _link: self.0.take_link(id)?,
        })
    }
}

/// Keeps the calling thread on one CPU.
///
/// # Errors
/// If there is no such CPU.
pub(super) fn pin(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("no CPU {cpu}"))
}

fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodPlan(Plan);

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodState(State);

// SAFETY: `repr(C)`, all fields are u64, so that there is no padding and any bytes are a valid value.
unsafe impl Pod for PodPlan {}
// SAFETY: as above.
unsafe impl Pod for PodState {}
