use std::collections::BTreeMap;

use super::*;

/// Pins in memory. The process is killed after so many steps.
struct Model {
    maps: BTreeMap<PathBuf, (u32, u64, u64)>,
    steps: usize,
}

impl Model {
    /// Pins with the numbers of their maps, and what was counted in each.
    fn new(pins: &[(&str, u64)]) -> Self {
        let maps = (1..)
            .zip(pins)
            .map(|(id, (path, count))| (PathBuf::from(path), (id, 7, *count)));
        Self {
            maps: maps.collect(),
            steps: usize::MAX,
        }
    }

    fn step(&mut self) -> io::Result<()> {
        if self.steps == 0 {
            return Err(io::Error::other("killed"));
        }
        self.steps -= 1;
        Ok(())
    }
}

impl Pins for Model {
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let here = self.maps.keys().filter(|path| path.parent() == Some(directory));
        Ok(here.cloned().collect())
    }

    fn read(&self, path: &Path) -> io::Result<Run> {
        let (id, mark, count) = self.maps[path];
        let mut counters = counters::zero();
        counters.by_reason[0] = count;
        Ok(Run { id, mark, counters })
    }

    fn write(&mut self, path: &Path, counters: &Counters, mark: u64) -> io::Result<()> {
        self.step()?;
        let map = self.maps.get_mut(path).unwrap();
        (map.1, map.2) = (mark, counters.by_reason[0]);
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let map = self.maps.remove(from).unwrap();
        self.maps.insert(to.to_owned(), map);
        Ok(())
    }
}

/// The sum, and what is pinned then.
fn gathered(model: &mut Model, from: &str, own: &str) -> io::Result<(u64, Vec<String>)> {
    let sum = gather(model, Path::new(from), Path::new("new"), Path::new(own))?;
    let pins = model.maps.keys().map(|path| path.display().to_string());
    Ok((sum.by_reason[0], pins.collect()))
}

#[test]
fn whatever_runs_left_is_summed_once_however_often_the_next_are_killed() {
    let own = ("new/LOCAL-99", 1_000_000);
    let left: [&[(&str, u64)]; 5] = [
        &[own],
        &[("new/LOCAL", 1), own],
        &[
            ("new/BASE", 1),
            ("new/LOCAL", 20),
            ("new/LOCAL-7", 300),
            ("new/LOCAL-8", 4_000),
            own,
        ],
        &[("old/BASE", 1), ("old/LOCAL", 20), ("old/LOCAL-7", 300), own],
        &[
            ("old/LOCAL", 1),
            ("new/LOCAL-7", 20),
            ("new/BASE", 300),
            ("old/BASE", 4_000),
            own,
        ],
    ];
    for pins in left {
        let all: u64 = pins.iter().map(|(_, count)| count).sum::<u64>() - own.1;
        let from = if pins[0].0.starts_with("old") {
            "old"
        } else {
            "new"
        };
        let whole = gathered(&mut Model::new(pins), from, own.0).unwrap();
        assert_eq!(whole.0, all, "{pins:?}");
        let mut expected = vec![own.0.to_owned()];
        if all > 0 {
            expected.insert(0, "new/BASE".to_owned());
        }
        assert_eq!(whole.1, expected, "{pins:?}");
        // Killed after any number of steps, and the next one again after any number.
        for first in 0..20 {
            for second in 0..20 {
                let mut model = Model::new(pins);
                for steps in [first, second] {
                    model.steps = steps;
                    let _ = gathered(&mut model, from, own.0);
                }
                model.steps = usize::MAX;
                let found = gathered(&mut model, from, own.0).unwrap();
                assert_eq!(found, whole, "{pins:?}, killed after {first} and {second} steps");
            }
        }
    }
}

#[test]
fn the_mark_of_one_sum_is_not_taken_for_that_of_another() {
    let mut model = Model::new(&[("new/BASE", 1), ("new/LOCAL", 20)]);
    // Holds the sum of another `BASE`, as after an upgrade.
    model.maps.get_mut(Path::new("new/LOCAL")).unwrap().1 = SUMMED ^ 77;
    assert_eq!(gathered(&mut model, "new", "new/none").unwrap().0, 21);
}
