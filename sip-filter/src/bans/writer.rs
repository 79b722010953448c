//! Writes to the store on a thread of its own: the event path never waits for a disk, and what is asked for while
//! the disk is busy is written together.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::{Batch, Store, StoreError};

/// How long after a failed write the next attempt is made.
const RETRY: Duration = Duration::from_secs(5);

/// Changes of one commit: bounds its memory and the time a caller waits for others.
const COMMIT: usize = 16;

/// How often it is looked whether the file is still there.
const LOOK: Duration = Duration::from_secs(5);

struct Job {
    batch: Batch,
    /// All there is, for a file that is gone.
    anew: bool,
    done: mpsc::Sender<Result<(), Arc<StoreError>>>,
}

/// Tells when a batch is on the disk.
#[derive(Debug)]
#[must_use = "what is not waited for must not be acknowledged"]
pub struct Receipt(Option<mpsc::Receiver<Result<(), Arc<StoreError>>>>);

impl Receipt {
    /// Nothing had to be written.
    pub const NOTHING: Self = Self(None);

    /// Waits; blocks the thread.
    ///
    /// # Errors
    /// Why it could not be written. It stays queued and is tried again.
    pub fn wait(self) -> Result<(), Arc<StoreError>> {
        match self.0.map(|done| done.recv()) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(mpsc::RecvError)) => Err(Arc::new(StoreError::Failed {
                path: "the store".to_owned(),
                reason: "its writer has stopped".to_owned(),
            })),
        }
    }

    /// For what nobody waits for: a failure is logged by the writer and tried again.
    pub fn detach(self) {}
}

/// Handle of the writer thread; dropping it writes what is queued and closes the store.
#[derive(Debug)]
pub struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    state: Arc<State>,
}

/// What others may ask.
#[derive(Debug, Default)]
struct State {
    /// Why something is not saved.
    trouble: Mutex<Option<Arc<StoreError>>>,
    /// The file is gone, and all there is must be given to write.
    wanted: AtomicBool,
}

impl State {
    fn trouble(&self) -> MutexGuard<'_, Option<Arc<StoreError>>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of how the last attempt went; logs it if that is news.
    fn note(&self, now: Option<&Arc<StoreError>>) {
        let gone = now.is_some_and(|error| matches!(**error, StoreError::Gone { .. }));
        self.wanted.store(gone, Ordering::Relaxed);
        let mut trouble = self.trouble();
        match (trouble.as_ref(), now) {
            // Why it could not be written anew says more.
            (Some(_), Some(_)) if gone => return,
            (Some(_), None) => tracing::info!("the ban list can be saved again"),
            (Some(before), Some(error)) if before.to_string() == error.to_string() => {}
            (_, Some(error)) => {
                tracing::error!(%error, "bans are in force but cannot be saved; trying again every 5 s");
            }
            (None, None) => {}
        }
        *trouble = now.cloned();
    }
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn start(store: Store) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || {
            crate::privileges::enter_thread();
            Desk::new(store, shared).run(&queue);
        })?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            state,
        })
    }

    /// Queues a batch.
    pub fn submit(&self, batch: Batch) -> Receipt {
        if batch.is_empty() {
            return Receipt::NOTHING;
        }
        self.send(batch, false)
    }

    /// Queues all there is, to be written to a new file, see [`Self::wants_all`].
    pub fn submit_all(&self, all: Batch) -> Receipt {
        self.send(all, true)
    }

    fn send(&self, batch: Batch, anew: bool) -> Receipt {
        let (done, receipt) = mpsc::channel();
        if let Some(jobs) = &self.jobs {
            // If the thread is gone, the sender in the job goes with it, which the receipt reports.
            let _ = jobs.send(Job { batch, anew, done });
        }
        Receipt(Some(receipt))
    }

    /// Why something that was asked for is not saved; `None` if all is.
    #[must_use]
    pub fn trouble(&self) -> Option<Arc<StoreError>> {
        self.state.trouble().clone()
    }

    /// Whether the file is gone, and what it held is to be given to [`Self::submit_all`], once.
    #[must_use]
    pub fn wants_all(&self) -> bool {
        self.state.wanted.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

impl Writer {
    /// Writes what is queued and closes the store; what is submitted afterwards fails.
    pub fn close(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the writer was reported as such already.
            let _ = thread.join();
        }
    }
}

/// What the thread has.
struct Desk {
    store: Store,
    state: Arc<State>,
    /// What could not be written yet.
    backlog: Batch,
}

impl Desk {
    fn new(store: Store, state: Arc<State>) -> Self {
        Self {
            store,
            state,
            backlog: Batch::default(),
        }
    }

    fn run(mut self, queue: &mpsc::Receiver<Job>) {
        loop {
            let pause = if self.backlog.is_empty() { LOOK } else { RETRY };
            match queue.recv_timeout(pause) {
                Ok(first) => {
                    let more = queue.try_iter().take(COMMIT - 1);
                    let jobs: Vec<Job> = std::iter::once(first).chain(more).collect();
                    self.serve(jobs);
                }
                Err(mpsc::RecvTimeoutError::Timeout) if self.backlog.is_empty() => self.rest(),
                Err(mpsc::RecvTimeoutError::Timeout) => self.try_again(),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    if let Err(error) = self.store.write(&self.backlog) {
                        tracing::error!(%error, "the last changes of the ban list could not be saved");
                    }
                    return;
                }
            }
        }
    }

    /// Nobody wants anything.
    fn rest(&mut self) {
        let looked = self.store.check_file().map_err(Arc::new);
        self.state.note(looked.as_ref().err());
        if looked.is_ok() {
            self.store.tidy();
        }
    }

    fn try_again(&mut self) {
        let written = self.store.write(&self.backlog).map_err(Arc::new);
        if written.is_ok() {
            self.backlog = Batch::default();
        }
        self.state.note(written.as_ref().err());
    }

    /// Writes all that is asked for together. If there is no room for that, there may be for some of it.
    fn serve(&mut self, jobs: Vec<Job>) {
        let anew = jobs.iter().rposition(|job| job.anew);
        if let Some(last) = anew {
            return self.serve_anew(jobs, last);
        }
        if let [job] = &jobs[..]
            && self.backlog.is_empty()
        {
            let written = self.store.write(&job.batch);
            return self.answer(jobs, written.map_err(Arc::new));
        }
        let mut all = self.backlog.clone();
        jobs.iter().for_each(|job| all.append(job.batch.clone()));
        match self.store.write(&all).map_err(Arc::new) {
            Ok(()) => {
                self.backlog = Batch::default();
                self.answer(jobs, Ok(()));
            }
            Err(error) if matches!(*error, StoreError::NoRoom { .. }) => {
                for job in jobs {
                    let written = self.store.write(&job.batch).map_err(Arc::new);
                    self.answer(vec![job], written);
                }
            }
            Err(error) => self.answer(jobs, Err(error)),
        }
    }

    /// What was asked for before is in it.
    fn serve_anew(&mut self, mut jobs: Vec<Job>, last: usize) {
        if self.store.check_file().is_ok() {
            // It is back, with bans in it that may have ended meanwhile: the changes since are what it lacks.
            jobs.retain(|job| !job.anew);
            return match jobs.is_empty() {
                true => self.try_again(),
                false => self.serve(jobs),
            };
        }
        let later = jobs.split_off(last + 1);
        let written = match jobs.last() {
            Some(all) => self.store.write_anew(&all.batch).map_err(Arc::new),
            None => Ok(()),
        };
        if written.is_ok() {
            self.backlog = Batch::default();
        }
        // It is asked for again.
        jobs.retain(|job| written.is_ok() || !job.anew);
        self.answer(jobs, written);
        if !later.is_empty() {
            self.serve(later);
        }
    }

    /// Tells those who wait. What could not be written waits with what could not be before.
    fn answer(&mut self, jobs: Vec<Job>, written: Result<(), Arc<StoreError>>) {
        for Job { batch, done, .. } in jobs {
            match &written {
                Ok(()) => {
                    self.backlog.forget(&batch);
                    // Who is told may give back free memory, and a long list's records are to be among it.
                    drop(batch);
                }
                Err(_) => self.backlog.append(batch),
            }
            // Who does not wait is not told.
            let _ = done.send(written.clone());
        }
        match &written {
            Err(error) => self.state.note(Some(error)),
            Ok(()) if self.backlog.is_empty() => self.state.note(None),
            Ok(()) => {}
        }
    }
}
