//! Waiting until no packet is in the hands of a program, or of tables, that went out of use.

use std::{thread, time::Duration};

// linux/membarrier.h
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// Returns once every packet that was in the program when this was called has left it.
///
/// A program runs within an RCU read-side critical section (`Documentation/bpf/`, "RCU"), so the end of a grace period is
/// the end of all packets that began before it, however long the host of a virtual machine stops one of its processors
/// meanwhile. `membarrier(2)` waits for one, and takes no capability. Kernels with `nohz_full` refuse it: then `otherwise`
/// has to do.
pub(super) fn wait(otherwise: Duration) {
    // SAFETY: no pointers; the call changes nothing.
    let refused = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0;
    if refused {
        thread::sleep(otherwise);
    }
}
