//! The text as a file for node_exporter's textfile collector.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Name of the file in the collector's directory.
pub const FILE_NAME: &str = "sip_filter.prom";
/// Where the text is written before it is renamed. It must not end in `.prom`, or the collector would read it half
/// written; and it is always the same, so that whatever a crash leaves behind is overwritten.
const TEMPORARY: &str = ".sip_filter.prom.tmp";

/// The file could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot write {path}: node_exporter will not see sip-filter's metrics; check that the directory of `metrics.textfile` exists and is writable"
)]
pub struct TextfileError {
    /// The file.
    pub path: PathBuf,
    /// What went wrong.
    #[source]
    pub source: io::Error,
}

/// Writes the text as a file, whole or not at all.
#[derive(Debug)]
pub struct Textfile {
    directory: PathBuf,
    problem: Option<String>,
}

impl Textfile {
    /// For node_exporter's `--collector.textfile.directory`.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            problem: None,
        }
    }

    /// Path of the file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.join(FILE_NAME)
    }

    /// Replaces the file. Blocks for as long as the disk does.
    ///
    /// # Errors
    /// [`TextfileError`] if the directory is not there or not writable; an older file stays as it is.
    pub fn write(&self, text: &str) -> Result<(), TextfileError> {
        self.replace(text).map_err(|source| TextfileError {
            path: self.path(),
            source,
        })
    }

    /// Like [`Textfile::write`], but for use again and again: logs the first failure and the recovery, not every
    /// failure between them.
    pub fn update(&mut self, text: &str) {
        match self.write(text) {
            Ok(()) if self.problem.is_some() => {
                tracing::info!(path = %self.path().display(), "the metrics file is written again");
                self.problem = None;
            }
            Ok(()) => {}
            Err(error) => {
                if self.problem.is_none() {
                    tracing::warn!(error = %error, cause = %error.source, "metrics file not written");
                }
                self.problem = Some(format!("cannot write {}: {}", error.path.display(), error.source));
            }
        }
    }

    /// Why the last [`Textfile::update`] failed, if it did.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Removes the file, for a clean stop: what nobody updates must not look current. That it is gone already is
    /// no error.
    ///
    /// # Errors
    /// [`TextfileError`] if it is there and cannot be removed.
    pub fn remove(self) -> Result<(), TextfileError> {
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(TextfileError {
                path: self.path(),
                source: error,
            }),
            _ => Ok(()),
        }
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        match fs::remove_file(self.directory.join(TEMPORARY)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // In the same directory, because only there a rename is atomic.
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .rand_bytes(0)
            .tempfile_in(&self.directory)?;
        file.write_all(text.as_bytes())?;
        // Temporary files are private; the exporter runs as another user.
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o644))?;
        file.persist(self.path()).map_err(|error| error.error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_the_file_whole_and_readable_and_removes_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut textfile = Textfile::new(directory.path());
        // What a crash left behind is in nobody's way.
        fs::write(directory.path().join(TEMPORARY), "half").unwrap();
        textfile.write("one 1\n").unwrap();
        textfile.update("two 2\n");
        assert_eq!(entries(directory.path()), [FILE_NAME]);
        assert_eq!(fs::read_to_string(textfile.path()).unwrap(), "two 2\n");
        assert_eq!(
            fs::metadata(textfile.path()).unwrap().permissions().mode() & 0o777,
            0o644
        );
        textfile.remove().unwrap();
        assert!(entries(directory.path()).is_empty());
        Textfile::new(directory.path()).remove().unwrap();
    }

    #[test]
    fn a_missing_directory_is_an_error_until_it_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("textfile");
        let mut textfile = Textfile::new(&inner);
        let error = textfile.write("x 1\n").unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
        textfile.update("x 1\n");
        assert!(
            textfile
                .problem()
                .unwrap()
                .contains("sip_filter.prom: No such file")
        );
        fs::create_dir(&inner).unwrap();
        textfile.update("x 1\n");
        assert_eq!(textfile.problem(), None);
        assert_eq!(entries(&inner), [FILE_NAME]);
    }
}
