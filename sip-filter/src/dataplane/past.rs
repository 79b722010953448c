//! Counters of earlier runs: an upgrade or a restart replaces program and tables, and what was counted goes on.
//!
//! Each run pins its map of counters under a name of its own before its program counts the first packet. Once the
//! program of the run before has counted its last, each earlier map is taken into the sum in two steps: the sum so far
//! and what the map holds is written into it by one call, with a mark that names the sum so far, `BASE`; then it becomes
//! `BASE` by one renaming. A kill at any point in between loses nothing and counts nothing twice: of a map with the mark,
//! the next run knows that the sum is in it already. (test: every such point)

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Counters, DataplaneError, LoadedProgram, counters,
    program::{COUNTERS, PodLocal, map_data},
    quiet,
};
use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};

/// The pin of what earlier runs counted.
const BASE: &str = "BASE";

/// In the place of the random state of CPU 0, with the number of a map: this map holds a sum, and that map's is in it.
const SUMMED: u64 = 0x7375_6d6d_6564_2121;

/// A packet that began under the program before is counted by then, where the kernel does not tell ([`quiet`]).
const GRACE: Duration = Duration::from_millis(5);

/// What earlier runs counted.
pub(super) struct Past {
    /// The sum.
    pub(super) sum: Counters,
    /// The map that holds it for the next run, if there was one before.
    map: Option<MapData>,
}

/// Gives this run's counters a pin before they are counted in.
pub(super) fn pin(directory: &Path, program: &LoadedProgram) -> Result<PathBuf, DataplaneError> {
    let data = map_data(&program.ebpf, COUNTERS)?;
    let id = data.info().map_err(DataplaneError::map)?.id();
    let path = directory.join(format!("{COUNTERS}-{id}"));
    data.pin(&path).map_err(|error| DataplaneError::Pin {
        path: path.clone(),
        source: error.into(),
    })?;
    Ok(path)
}

/// Takes over what earlier runs counted, from the pins in `from`, once `own` (see [`pin`]) counts in their place; the pins
/// are then as they should be in `to`. Where that fails, counting starts at zero, and says so.
pub(super) fn take_over(from: &Path, to: &Path, own: &Path) -> Past {
    quiet::wait(GRACE);
    let taken = gather(&mut Kernel, from, to, own);
    let named = fs::rename(own, to.join(COUNTERS));
    let sum = match taken.and_then(|sum| named.map(|()| sum)) {
        Ok(sum) => sum,
        Err(error) => {
            tracing::warn!(%error, pins = %from.display(), "the counters of earlier runs cannot be taken over; counting starts at zero");
            counters::zero()
        }
    };
    Past {
        sum,
        map: MapData::from_pin(to.join(BASE)).ok(),
    }
}

/// Pins this run's counters and those of earlier runs again, after their pins were lost.
pub(super) fn pin_again(
    directory: &Path,
    program: &LoadedProgram,
    past: &Past,
) -> Result<(), DataplaneError> {
    let own = map_data(&program.ebpf, COUNTERS)?;
    let maps = [(COUNTERS, Some(own)), (BASE, past.map.as_ref())];
    for (name, map) in maps {
        let path = directory.join(name);
        if let Some(map) = map
            && !path.exists()
        {
            map.pin(&path).map_err(|error| DataplaneError::Pin {
                path,
                source: error.into(),
            })?;
        }
    }
    Ok(())
}

/// A map of counters that is pinned.
struct Run {
    /// The map's number, which no other has.
    id: u32,
    mark: u64,
    counters: Counters,
}

/// Where maps of counters are pinned. Each call is one step: it is done or not.
trait Pins {
    /// Those in a directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
    fn read(&self, path: &Path) -> io::Result<Run>;
    /// Writes into a map in which nobody counts any more.
    fn write(&mut self, path: &Path, counters: &Counters, mark: u64) -> io::Result<()>;
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
}

/// The sum of all runs but `own`, of whose maps one is left then, `BASE` of `to`. A run that was killed at an upgrade left
/// maps in both directories.
fn gather(pins: &mut impl Pins, from: &Path, to: &Path, own: &Path) -> io::Result<Counters> {
    if from != to && fold(pins, from, own)?.is_some() {
        let base = from.join(BASE);
        let id = pins.read(&base)?.id;
        pins.rename(&base, &to.join(format!("{COUNTERS}-{id}")))?;
    }
    let base = fold(pins, to, own)?;
    Ok(base.map_or_else(counters::zero, |base| base.counters))
}

/// Takes every map of a directory into its `BASE`, one after the other, and returns that.
fn fold(pins: &mut impl Pins, directory: &Path, own: &Path) -> io::Result<Option<Run>> {
    let path_of_base = directory.join(BASE);
    let (mut base, mut runs) = (None, Vec::new());
    for path in pins.list(directory)? {
        if path == path_of_base {
            base = Some(pins.read(&path)?);
        } else if path != own {
            let run = pins.read(&path)?;
            runs.push((path, run));
        }
    }
    // One into which a run that was killed has written the sum goes first.
    let has_base = |run: &Run, base: &Option<Run>| {
        base.as_ref()
            .is_some_and(|base| run.mark == SUMMED ^ u64::from(base.id))
    };
    runs.sort_by_key(|(path, run)| (!has_base(run, &base), path.clone()));
    for (path, mut run) in runs {
        if !has_base(&run, &base) {
            let mark = base.as_ref().map_or(0, |base| SUMMED ^ u64::from(base.id));
            if let Some(base) = &base {
                counters::add(&mut run.counters, &base.counters);
            }
            pins.write(&path, &run.counters, mark)?;
        }
        pins.rename(&path, &path_of_base)?;
        base = Some(run);
    }
    Ok(base)
}

/// Pins in the BPF file system.
struct Kernel;

impl Pins for Kernel {
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name == BASE || name.starts_with(COUNTERS) {
                found.push(path);
            }
        }
        Ok(found)
    }

    fn read(&self, path: &Path) -> io::Result<Run> {
        let map = open(path)?;
        let values = map.get(&0, 0).map_err(io::Error::other)?;
        let mut counters = counters::zero();
        for PodLocal(local) in values.iter() {
            counters::add(&mut counters, &local.counters);
        }
        Ok(Run {
            id: MapData::from_pin(path)
                .and_then(|map| map.info())
                .map_err(io::Error::other)?
                .id(),
            mark: values.first().map_or(0, |PodLocal(local)| local.random),
            counters,
        })
    }

    fn write(&mut self, path: &Path, counters: &Counters, mark: u64) -> io::Result<()> {
        let mut map = open(path)?;
        let values = map.get(&0, 0).map_err(io::Error::other)?;
        let mut values = values.to_vec();
        for PodLocal(local) in &mut values {
            local.counters = *counters::zero();
        }
        if let Some(PodLocal(first)) = values.first_mut() {
            first.counters = **counters;
            first.random = mark;
        }
        map.set(0, PerCpuValues::try_from(values)?, 0)
            .map_err(io::Error::other)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
}

fn open(path: &Path) -> io::Result<PerCpuArray<MapData, PodLocal>> {
    let map = MapData::from_pin(path).and_then(Map::from_map_data);
    map.and_then(PerCpuArray::try_from).map_err(io::Error::other)
}

#[cfg(test)]
#[path = "past_tests.rs"]
mod tests;
