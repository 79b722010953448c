//! Counters of earlier runs: an upgrade or a restart replaces program and tables, and what was counted goes on.
//!
//! Each run pins its map of counters under a name of its own before its program counts the first packet. Once the
//! program of the run before has counted its last, the sum of all is written into that run's map, which nobody counts
//! in any more, and that becomes the pin `BASE`. A kill at any point in between loses nothing and counts nothing twice:
//! a map with the mark holds what `BASE` held already.

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

/// In the place of the random state of CPU 0: this map holds a sum, that of `BASE` included.
const SUMMED: u64 = 0x7375_6d6d_6564_2121;

/// A packet that began under the program before is counted by then, where the kernel does not tell ([`quiet`]).
const GRACE: Duration = Duration::from_millis(5);

type Pinned = PerCpuArray<MapData, PodLocal>;

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
    let taken = sum(from, own).and_then(|(sum, spare)| {
        if let Some((path, map)) = spare {
            keep(&sum, map)?;
            fs::rename(&path, to.join(BASE))?;
        }
        // What is left are runs that ended before they came so far; they are in the sum.
        for path in pins(from, own)? {
            if path != to.join(BASE) {
                fs::remove_file(path)?;
            }
        }
        Ok(sum)
    });
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

/// Pins of counters, but for our own.
fn pins(directory: &Path, own: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path != own && (name == BASE || name.starts_with(COUNTERS)) {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The sum of all earlier runs, and the map of one of them.
fn sum(directory: &Path, own: &Path) -> io::Result<(Counters, Option<(PathBuf, Pinned)>)> {
    let mut sum = counters::zero();
    let (mut base, mut base_included, mut spare) = (counters::zero(), false, None);
    for path in pins(directory, own)? {
        let map = open(&path)?;
        let values = map.get(&0, 0).map_err(io::Error::other)?;
        let is_base = path.file_name().is_some_and(|name| name == BASE);
        let into = if is_base { &mut base } else { &mut sum };
        for PodLocal(local) in values.iter() {
            counters::add(into, &local.counters);
        }
        if !is_base {
            base_included |= values
                .first()
                .is_some_and(|PodLocal(local)| local.random == SUMMED);
            spare = Some((path, map));
        }
    }
    if !base_included {
        counters::add(&mut sum, &base);
    }
    Ok((sum, spare))
}

fn open(path: &Path) -> io::Result<Pinned> {
    let map = MapData::from_pin(path).and_then(Map::from_map_data);
    map.and_then(PerCpuArray::try_from).map_err(io::Error::other)
}

/// Writes a sum into a map in which nobody counts any more, by one call.
fn keep(sum: &Counters, mut map: Pinned) -> io::Result<()> {
    let values = map.get(&0, 0).map_err(io::Error::other)?;
    let mut values = values.to_vec();
    for PodLocal(local) in &mut values {
        local.counters = *counters::zero();
    }
    if let Some(PodLocal(first)) = values.first_mut() {
        first.counters = **sum;
        first.random = SUMMED;
    }
    map.set(0, PerCpuValues::try_from(values)?, 0)
        .map_err(io::Error::other)
}
