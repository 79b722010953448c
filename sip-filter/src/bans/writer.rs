//! Writes to the store on a thread of its own: the event path never waits for a disk, and what is asked for while
//! the disk is busy is written together.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::{Batch, Store, StoreError};

/// How long after a failed write the next attempt is made.
const RETRY: Duration = Duration::from_secs(5);

/// Changes of one commit: bounds its memory and the time a caller waits for others.
const COMMIT: usize = 16;

/// How often it is looked whether the file is still there.
const LOOK: Duration = Duration::from_secs(5);

/// A disk that takes longer over a commit hangs: nobody waits for it any more, and health tells.
const HANGS: Duration = Duration::from_secs(15);

/// Records for which a slow disk has one more second.
const EACH_SECOND: usize = 5_000;

/// How often those who wait for a commit look whether the disk hangs.
const GLANCE: Duration = Duration::from_millis(250);

type Written = Result<(), Arc<StoreError>>;

#[derive(Debug)]
struct Job {
    batch: Batch,
    /// All there is, for a file that is gone.
    anew: bool,
    done: mpsc::Sender<Written>,
    /// The receipt, if somebody has it still.
    receipt: Weak<()>,
}

impl Job {
    /// Whether a later batch may be written together with it: nobody waits to hear of this one alone.
    fn takes_more(&self) -> bool {
        !self.anew && self.receipt.strong_count() == 0
    }
}

/// Tells when a batch is on the disk.
#[derive(Debug)]
#[must_use = "what is not waited for must not be acknowledged"]
pub struct Receipt(Option<Awaited>);

#[derive(Debug)]
struct Awaited {
    done: mpsc::Receiver<Written>,
    state: Arc<State>,
    _waits: Arc<()>,
}

impl Receipt {
    /// Nothing had to be written.
    pub const NOTHING: Self = Self(None);

    /// Waits; blocks the thread.
    ///
    /// # Errors
    /// Why it could not be written, or that the disk hangs. It stays queued, and is written once that can be.
    pub fn wait(self) -> Result<(), Arc<StoreError>> {
        let Some(awaited) = self.0 else {
            return Ok(());
        };
        loop {
            match awaited.done.recv_timeout(GLANCE) {
                Ok(result) => return result,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    if let Some(error) = awaited.state.hanging() {
                        return Err(error);
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(failed("its writer has stopped".to_owned()));
                }
            }
        }
    }

    /// For what nobody waits for: a failure is logged by the writer and tried again.
    pub fn detach(self) {}
}

fn failed(reason: String) -> Arc<StoreError> {
    Arc::new(StoreError::Failed {
        path: "the store".to_owned(),
        reason,
    })
}

/// Handle of the writer thread; dropping it writes what is queued and closes the store.
#[derive(Debug)]
pub struct Writer {
    thread: Option<thread::JoinHandle<()>>,
    state: Arc<State>,
}

/// What others may ask.
#[derive(Debug, Default)]
struct State {
    queue: Mutex<Queue>,
    /// Something was queued, or the queue was closed.
    news: Condvar,
    /// Since when the thread is at the disk, and how long that may take.
    at_disk: Mutex<Option<(Instant, Duration)>>,
    /// That it hangs was logged.
    hang_told: AtomicBool,
    /// Why something is not saved.
    trouble: Mutex<Option<Arc<StoreError>>>,
    /// The file is gone, and all there is must be given to write.
    wanted: AtomicBool,
}

/// What waits for the thread, in order.
#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// What the thread is to do next.
enum Next {
    Serve(Vec<Job>),
    Idle,
    End,
}

impl State {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job. What nobody waits for is joined if much is queued: while a disk hangs, what waits grows with what
    /// there is, not with time.
    fn put(&self, job: Job) {
        let mut queue = self.queue();
        if queue.closed {
            // Its sender goes with it, which the receipt reports.
            return;
        }
        let full = queue.jobs.len() >= COMMIT && !job.anew;
        match queue.jobs.back_mut().filter(|last| full && last.takes_more()) {
            Some(last) => {
                last.batch.append(job.batch);
                (last.done, last.receipt) = (job.done, job.receipt);
            }
            None => queue.jobs.push_back(job),
        }
        self.news.notify_one();
    }

    /// What is queued, if anything is within the time.
    fn take(&self, pause: Duration) -> Next {
        let nothing = |queue: &mut Queue| queue.jobs.is_empty() && !queue.closed;
        let waited = self.news.wait_timeout_while(self.queue(), pause, nothing);
        let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let count = queue.jobs.len().min(COMMIT);
        match (count, queue.closed) {
            (0, true) => Next::End,
            (0, false) => Next::Idle,
            _ => Next::Serve(queue.jobs.drain(..count).collect()),
        }
    }

    /// Nothing is taken any more; whether what is queued is still written depends on who calls.
    fn close(&self, forget: bool) {
        let mut queue = self.queue();
        queue.closed = true;
        if forget {
            queue.jobs.clear();
        }
        self.news.notify_one();
    }

    fn at_disk(&self) -> MutexGuard<'_, Option<(Instant, Duration)>> {
        self.at_disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something at the disk with so many records, which others can see to hang.
    fn watched<T>(&self, records: usize, work: impl FnOnce() -> T) -> T {
        let more = Duration::from_secs((records / EACH_SECOND) as u64);
        *self.at_disk() = Some((Instant::now(), HANGS + more));
        let done = work();
        *self.at_disk() = None;
        if self.hang_told.swap(false, Ordering::Relaxed) {
            tracing::info!("the store's disk answers again");
        }
        done
    }

    /// That the disk hangs, if it does. The thread that waits for it cannot say so: whoever asks first does.
    fn hanging(&self) -> Option<Arc<StoreError>> {
        let may_take = {
            let (since, may_take) = (*self.at_disk())?;
            (since.elapsed() >= may_take).then_some(may_take.as_secs())?
        };
        // The same text all the while: it is one condition, not one each second.
        let error = failed(format!(
            "its disk hangs, without an answer for more than {may_take} s"
        ));
        if !self.hang_told.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "bans are in force but cannot be saved until the disk answers");
        }
        Some(error)
    }

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
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || {
            crate::privileges::enter_thread();
            // Also if it panics: nobody is to wait for ever.
            let _end = End(Arc::clone(&shared));
            Desk::new(store, shared).run();
        })?;
        Ok(Self {
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
        let (sender, done) = mpsc::channel();
        let waits = Arc::new(());
        self.state.put(Job {
            batch,
            anew,
            done: sender,
            receipt: Arc::downgrade(&waits),
        });
        Receipt(Some(Awaited {
            done,
            state: Arc::clone(&self.state),
            _waits: waits,
        }))
    }

    /// Why something that was asked for is not saved; `None` if all is.
    #[must_use]
    pub fn trouble(&self) -> Option<Arc<StoreError>> {
        self.state.hanging().or_else(|| self.state.trouble().clone())
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
        self.state.close(false);
        if let Some(thread) = self.thread.take() {
            // A panic of the writer was reported as such already.
            let _ = thread.join();
        }
    }
}

/// The end of the thread, however it comes.
struct End(Arc<State>);

impl Drop for End {
    fn drop(&mut self) {
        *self.0.at_disk() = None;
        self.0.close(true);
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

    fn run(mut self) {
        let state = Arc::clone(&self.state);
        loop {
            let waits = self.backlog.len();
            match state.take(if waits == 0 { LOOK } else { RETRY }) {
                Next::Serve(jobs) => {
                    let records = jobs.iter().map(|job| job.batch.len()).sum::<usize>() + waits;
                    state.watched(records, || self.serve(jobs));
                }
                Next::Idle if waits == 0 => state.watched(0, || self.rest()),
                Next::Idle => state.watched(waits, || self.try_again()),
                Next::End => {
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

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
