//! Writes to the store on a thread of its own: the event path never waits for a disk, and what is asked for while
//! the disk is busy is written together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::{Store, StoreError, store::Batch};

/// How long after a failed write the next attempt is made.
const RETRY: Duration = Duration::from_secs(5);

/// Changes of one commit: bounds its memory and the time a caller waits for others.
const COMMIT: usize = 16;

struct Job {
    batch: Batch,
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
    healthy: Arc<AtomicBool>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn start(store: Store) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let healthy = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&healthy);
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || {
            crate::privileges::enter_thread();
            run(store, &queue, &flag);
        })?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            healthy,
        })
    }

    /// Queues a batch.
    pub fn submit(&self, batch: Batch) -> Receipt {
        if batch.is_empty() {
            return Receipt::NOTHING;
        }
        let (done, receipt) = mpsc::channel();
        if let Some(jobs) = &self.jobs {
            // If the thread is gone, the sender in the job goes with it, which the receipt reports.
            let _ = jobs.send(Job { batch, done });
        }
        Receipt(Some(receipt))
    }

    /// Whether everything asked for so far could be written.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
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

fn run(mut store: Store, queue: &mpsc::Receiver<Job>, healthy: &AtomicBool) {
    let mut backlog = Batch::default();
    loop {
        let first = if backlog.is_empty() {
            queue.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
        } else {
            queue.recv_timeout(RETRY)
        };
        let mut waiting = Vec::new();
        match first {
            Ok(first) => {
                let more = queue.try_iter().take(COMMIT - 1);
                for job in std::iter::once(first).chain(more) {
                    backlog.append(job.batch);
                    waiting.push(job.done);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                if let Err(error) = store.write(&backlog) {
                    tracing::error!(%error, "the last changes of the ban list could not be saved");
                }
                return;
            }
        }
        let result = store.write(&backlog).map_err(Arc::new);
        let was_healthy = healthy.swap(result.is_ok(), Ordering::Relaxed);
        match &result {
            Ok(()) => {
                backlog = Batch::default();
                if !was_healthy {
                    tracing::info!("the ban list can be saved again");
                }
            }
            Err(error) if was_healthy => {
                tracing::error!(%error, "bans are in force but cannot be saved; trying again every 5 s");
            }
            Err(_) => {}
        }
        for done in waiting {
            // Who does not wait is not told.
            let _ = done.send(result.clone());
        }
    }
}
