//! Links as the kernel describes them with their file descriptors. aya does not tell the descriptor of a link, so ours
//! are searched for the link's id once.

use std::{ffi::CString, fs, io, os::unix::ffi::OsStrExt as _, path::Path};

use aya::programs::links::FdLink;

/// `BPF_OBJ_PIN` of linux/bpf.h.
const OBJ_PIN: libc::c_int = 6;

/// Where one of our links is described.
#[derive(Clone, Copy, Debug)]
pub(super) struct Description {
    descriptor: i32,
    id: u32,
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is attached to the interface of this number.
    Interface(u32),
    /// It is attached to nothing any more.
    Nowhere,
    /// It does not tell.
    Unknown,
}

impl Description {
    /// Finds that of a link; `None` if `/proc` does not tell.
    pub(super) fn of(link: &FdLink) -> Option<Self> {
        let id = link.info().ok()?.id();
        let descriptors = fs::read_dir("/proc/self/fdinfo").ok()?.flatten();
        let numbers = descriptors.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers
            .map(|descriptor| Self { descriptor, id })
            .find(|description| description.text().is_some())
    }

    /// To what the link is attached now.
    pub(super) fn place(self) -> Place {
        let Some(text) = self.text() else {
            return Place::Unknown;
        };
        match field(&text, "ifindex:") {
            Some(0) => Place::Nowhere,
            Some(index) => Place::Interface(index),
            None => Place::Unknown,
        }
    }

    /// The description, if it is still that of this link.
    fn text(self) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.descriptor)).ok()?;
        (field(&text, "link_id:") == Some(self.id)).then_some(text)
    }

    /// Gives the link another pin. Unlike aya's way, which lets go of the link, and so of the filter, where that fails.
    pub(super) fn pin(self, path: &Path) -> io::Result<()> {
        /// The beginning of `union bpf_attr` for this command.
        #[repr(C)]
        struct Attributes {
            path: u64,
            descriptor: u32,
            flags: u32,
        }
        if self.text().is_none() {
            return Err(io::Error::other("the link is not open any more"));
        }
        let path = CString::new(path.as_os_str().as_bytes())?;
        let attributes = Attributes {
            path: path.as_ptr() as u64,
            descriptor: self.descriptor.cast_unsigned(),
            flags: 0,
        };
        // SAFETY: the path is NUL-terminated and both outlive the call, which reads as many bytes as it is told.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                OBJ_PIN,
                &raw const attributes,
                size_of::<Attributes>(),
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// The interface a link is attached to, if any.
pub(super) fn interface_of(link: &FdLink) -> Option<u32> {
    match Description::of(link)?.place() {
        Place::Interface(index) => Some(index),
        Place::Nowhere | Place::Unknown => None,
    }
}

fn field(text: &str, name: &str) -> Option<u32> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))?
        .trim()
        .parse()
        .ok()
}
