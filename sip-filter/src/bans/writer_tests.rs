use super::*;
use crate::bans::Target;

fn removal(of: &str) -> Batch {
    let mut batch = Batch::default();
    batch.remove_ban(of.parse::<Target>().unwrap());
    batch
}

/// Queues a job as [`Writer::submit`] does, for a thread that never comes.
fn put(state: &Arc<State>, batch: Batch) -> Receipt {
    let writer = Writer {
        thread: None,
        state: Arc::clone(state),
    };
    let receipt = writer.submit(batch);
    std::mem::forget(writer);
    receipt
}

fn queued(state: &State) -> Vec<usize> {
    state.queue().jobs.iter().map(|job| job.batch.len()).collect()
}

#[test]
fn while_a_disk_hangs_what_nobody_waits_for_is_joined_and_stays_in_order() {
    let state = Arc::<State>::default();
    for number in 0..10_000 {
        put(&state, removal(&format!("192.0.2.{}", number % 100))).detach();
    }
    // Each record once, behind those that are not joined.
    let lengths = queued(&state);
    assert_eq!(lengths.len(), COMMIT);
    assert_eq!(lengths[COMMIT - 1], 100);

    // Somebody waits to hear of this one, and of nothing else.
    let receipt = put(&state, removal("198.51.100.1"));
    put(&state, removal("198.51.100.2")).detach();
    put(&state, removal("198.51.100.3")).detach();
    let lengths = queued(&state);
    assert_eq!(lengths[COMMIT - 1..], [101, 2]);
    assert!(!state.queue().jobs[COMMIT - 1].takes_more());
    drop(receipt);
    assert!(state.queue().jobs[COMMIT - 1].takes_more());
}

#[test]
fn nobody_waits_for_a_disk_that_hangs() {
    let state = Arc::<State>::default();
    let receipt = put(&state, removal("192.0.2.1"));
    let long_ago = Instant::now().checked_sub(HANGS * 2).unwrap();
    *state.at_disk() = Some((long_ago, HANGS * 3));
    assert!(state.hanging().is_none(), "much is written");
    *state.at_disk() = Some((long_ago, HANGS));
    let error = receipt.wait().unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot access the store: its disk hangs, without an answer for more than 15 s"
    );
    *state.at_disk() = None;
    assert!(state.hanging().is_none(), "it answers");
}

#[test]
fn nobody_waits_for_a_thread_that_has_ended() {
    let state = Arc::<State>::default();
    let before = put(&state, removal("192.0.2.1"));
    drop(End(Arc::clone(&state)));
    for receipt in [before, put(&state, removal("192.0.2.2"))] {
        let error = receipt.wait().unwrap_err().to_string();
        assert_eq!(error, "cannot access the store: its writer has stopped");
    }
}
