//! The verifier's log of programs that load.
//!
//! aya asks for a log only when the kernel has refused a program. To see what the verifier did with one it accepted, the
//! very system call that loads it is given a log: the function `syscall` of the C library, through which aya calls the
//! kernel, is defined here once more. The linker takes this one, and it goes on to the library's.

use std::{
    cell::RefCell,
    ffi::{CStr, c_long, c_void},
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

/// Command of `bpf(2)`.
const BPF_PROG_LOAD: usize = 5;
/// Sums alone: quick.
pub(crate) const STATISTICS: u32 = 4;
/// Every instruction with what is known of the registers, for all paths; and sums.
pub(crate) const EVERYTHING: u32 = 2 | 4;
/// Bytes of a log; no kernel allows more than 2³⁰.
const fn log_size(level: u32) -> usize {
    if level == STATISTICS { 64 << 10 } else { 128 << 20 }
}

/// The head of `union bpf_attr` for [`BPF_PROG_LOAD`] (`include/uapi/linux/bpf.h`).
#[repr(C)]
#[derive(Clone, Copy)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// More than any kernel's `union bpf_attr`.
const ATTRIBUTES_MAX: usize = 512;

/// A program that was loaded or refused, and what the verifier wrote.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) program: String,
    pub(crate) log: String,
}

thread_local! {
    /// What this thread loaded, while it wants to know, and in how much detail.
    static LOADS: RefCell<Option<(Level, Vec<Load>)>> = const { RefCell::new(None) };
}

/// How much of a program's log is wanted.
type Level = fn(&str) -> u32;

/// Runs `f` and returns the logs of our programs that it loads on this thread.
pub(crate) fn with_logs<T>(level: Level, f: impl FnOnce() -> T) -> (T, Vec<Load>) {
    LOADS.with_borrow_mut(|loads| *loads = Some((level, Vec::new())));
    let result = f();
    let loads = LOADS.with_borrow_mut(Option::take);
    (result, loads.map(|(_, loads)| loads).unwrap_or_default())
}

type Syscall = unsafe extern "C" fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long;

/// The C library's function.
fn real() -> Syscall {
    // No lock: locks call this function.
    static FOUND: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
    let mut found = FOUND.load(Ordering::Relaxed);
    if found.is_null() {
        // SAFETY: the name is a C string.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr()) };
        assert!(!found.is_null(), "the C library has no syscall()");
        FOUND.store(found, Ordering::Relaxed);
    }
    // SAFETY: that is the function of this name in the C library. It is variadic; on the platforms of Linux, integers are
    // passed to it just as to one with six parameters.
    unsafe { std::mem::transmute::<*mut c_void, Syscall>(found) }
}

/// In place of the C library's function.
// SAFETY: nothing else in this binary has that name; it does what the C library's does.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    if number == libc::SYS_bpf && a == BPF_PROG_LOAD && c <= ATTRIBUTES_MAX {
        let level = LOADS.try_with(|loads| Some(loads.try_borrow().ok()?.as_ref()?.0));
        if let Ok(Some(level)) = level {
            // SAFETY: the caller passes a `union bpf_attr` of `c` bytes.
            if let Some(result) = unsafe { load_with_log(b as *const u8, c, level) } {
                return result;
            }
        }
    }
    // SAFETY: as the caller wants it.
    unsafe { real()(number, a, b, c, d, e, f) }
}

/// Loads the program with these attributes, and a log. `None` if it is none of ours, as aya's probes for features, or has
/// a log already.
///
/// # Safety
/// `attributes` points to so many bytes, and what they point to is as the kernel wants it.
unsafe fn load_with_log(attributes: *const u8, length: usize, level: Level) -> Option<c_long> {
    if length < size_of::<LoadAttributes>() {
        return None;
    }
    let mut copy = [0_u64; ATTRIBUTES_MAX / 8];
    // SAFETY: so many bytes are there, and no more than the copy has.
    unsafe { ptr::copy_nonoverlapping(attributes, copy.as_mut_ptr().cast::<u8>(), length) };
    // SAFETY: the copy is large enough and aligned, and any bytes are valid for integers.
    let head = unsafe { &mut *copy.as_mut_ptr().cast::<LoadAttributes>() };
    let name: Vec<u8> = head.name.into_iter().take_while(|byte| *byte != 0).collect();
    if ![&b"ingress"[..], b"egress"].contains(&&name[..]) || head.log != 0 {
        return None;
    }
    let program = String::from_utf8_lossy(&name).into_owned();
    let level = level(&program);
    // Pages that nobody writes to cost nothing.
    let mut log = vec![0_u8; log_size(level)];
    head.log_level = level;
    head.log_size = log_size(level) as u32;
    head.log = log.as_mut_ptr() as u64;
    // SAFETY: the attributes are the caller's but for the log, which lives until the call is over.
    let result = unsafe {
        real()(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            copy.as_ptr() as usize,
            length,
            0,
            0,
            0,
        )
    };
    let errno = std::io::Error::last_os_error();
    let text = CStr::from_bytes_until_nul(&log)
        .map(CStr::to_bytes)
        .unwrap_or(&log);
    let load = Load {
        program,
        log: String::from_utf8_lossy(text).into_owned(),
    };
    LOADS.with_borrow_mut(|loads| {
        if let Some((_, loads)) = loads {
            loads.push(load);
        }
    });
    if let Some(code) = errno.raw_os_error().filter(|_| result < 0) {
        // SAFETY: this thread's own error number.
        unsafe { *libc::__errno_location() = code };
    }
    Some(result)
}
