//! Debian's kernels: which ones, and how to get at them without touching the machine's own package sources.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use super::{
    modules,
    step::{FULL, REFUSAL, Step},
};
use crate::{
    process::{output, run, which},
    setup,
    toolchain_record::ToolchainRecord,
};

/// Follows Debian's kernel for virtual machines, which has all we need and is a fifth of the size of the usual one.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// Signs the lists of every suite.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel to try.
pub(super) struct Kernel {
    pub(super) name: &'static str,
    /// The suite of Debian that has it.
    pub(super) suite: &'static str,
    /// Older than the oldest on which the filter works.
    too_old: bool,
}

const fn kernel(name: &'static str, suite: &'static str) -> Kernel {
    Kernel {
        name,
        suite,
        too_old: false,
    }
}

/// Oldest first.
pub(super) static KERNELS: [Kernel; 4] = [
    Kernel {
        too_old: true,
        ..kernel("5.10", "bullseye")
    },
    kernel("6.1", "bookworm"),
    kernel("6.12", "trixie"),
    kernel("newest", "sid"),
];

/// A kernel in the cache.
pub(super) struct Fetched {
    /// As `uname -r` says.
    pub(super) release: String,
    pub(super) image: PathBuf,
    /// Modules in the order in which they are to be loaded.
    pub(super) modules: Vec<PathBuf>,
}

impl Kernel {
    pub(super) fn steps(&self) -> &'static [Step] {
        if self.too_old { &REFUSAL } else { &FULL }
    }

    /// Finds it in the cache, or else fetches it.
    pub(super) fn fetch(&self, anew: bool) -> anyhow::Result<Fetched> {
        let cache = ToolchainRecord::cache_dir()
            .context("neither XDG_CACHE_HOME nor HOME says where the cache is")?;
        let cache = cache.join("kernels");
        let place = cache.join(self.name);
        if !anew && let Ok(found) = find(&place) {
            return Ok(found);
        }
        fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
        // Beside its place, so that what was interrupted is never taken for whole.
        let work = tempfile::Builder::new()
            .prefix(&format!("{}-", self.name))
            .tempdir_in(&cache)
            .with_context(|| format!("cannot create a directory in {}", cache.display()))?;
        let debs = Suite::open(self.suite, &work.path().join("apt"))?.download(PACKAGE)?;
        let new = work.path().join("new");
        take_out(&debs, &work.path().join("tree"), &new)?;
        let _ = fs::remove_dir_all(&place);
        fs::rename(&new, &place).with_context(|| format!("cannot write {}", place.display()))?;
        find(&place)
    }
}

fn find(place: &Path) -> anyhow::Result<Fetched> {
    let read =
        |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    let release = read(&place.join("release"))?.trim().to_owned();
    let list = place.join("modules");
    let entries = fs::read_dir(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let mut modules: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    modules.sort_unstable();
    Ok(Fetched {
        release,
        image: place.join("vmlinuz"),
        modules,
    })
}

/// Leaves in `new` what booting takes of these packages.
fn take_out(debs: &[PathBuf], tree: &Path, new: &Path) -> anyhow::Result<()> {
    for deb in debs {
        run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(tree))?;
    }
    let (image, release) = image_in(tree).context("the packages have no kernel")?;
    fs::create_dir_all(new).with_context(|| format!("cannot create {}", new.display()))?;
    fs::copy(image, new.join("vmlinuz")).context("cannot copy the kernel")?;
    modules::collect(tree, &release, &new.join("modules"))?;
    fs::write(new.join("release"), &release).context("cannot write the release")?;
    Ok(())
}

/// The kernel's image and release; since Linux 7 Debian keeps it beside the modules.
fn image_in(tree: &Path) -> Option<(PathBuf, String)> {
    let paths = |directory: &str| {
        let entries = fs::read_dir(tree.join(directory));
        entries.into_iter().flatten().flatten().map(|entry| entry.path())
    };
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let in_boot = |path: PathBuf| {
        let release = name(&path)?.strip_prefix("vmlinuz-")?.to_owned();
        Some((path, release))
    };
    let beside_modules = |path: PathBuf| {
        let image = path.join("vmlinuz");
        image.is_file().then_some((image, name(&path)?))
    };
    let found = paths("boot").find_map(in_boot);
    found.or_else(|| paths("usr/lib/modules").find_map(beside_modules))
}

/// A suite of Debian, with an apt that knows only this suite and nothing of what is installed here.
struct Suite<'a> {
    directory: &'a Path,
    options: Vec<String>,
}

impl<'a> Suite<'a> {
    fn open(suite: &str, directory: &'a Path) -> anyhow::Result<Self> {
        let mirror = mirror()?;
        for name in ["lists/partial", "archives/partial", "nothing"] {
            let path = directory.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        let sources = directory.join("sources.list");
        fs::write(
            &sources,
            format!("deb [arch=amd64 signed-by={KEYRING}] {mirror} {suite} main\n"),
        )
        .and_then(|()| fs::write(directory.join("status"), ""))
        .with_context(|| format!("cannot write {}", sources.display()))?;
        let at = |name: &str| directory.join(name).display().to_string();
        let options = [
            ("Dir::Etc::SourceList", at("sources.list")),
            ("Dir::Etc::SourceParts", at("nothing")),
            ("Dir::Etc::PreferencesParts", at("nothing")),
            ("Dir::Etc::Preferences", at("nothing/preferences")),
            ("Dir::State", at("")),
            ("Dir::State::Status", at("status")),
            ("Dir::Cache", at("")),
            // The cache may lie where apt's own user cannot look.
            ("APT::Sandbox::User", "root".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            (
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
                "false".to_owned(),
            ),
            ("Acquire::Retries", "3".to_owned()),
        ];
        let options = options
            .into_iter()
            .flat_map(|(key, value)| ["-o".to_owned(), format!("{key}={value}")])
            .collect();
        let suite = Self { directory, options };
        suite.run("apt-get", &["update", "--quiet"])?;
        Ok(suite)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .env("LC_ALL", "C")
            .current_dir(self.directory)
            .args(&self.options)
            .args(arguments);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let shown = format!("{program} {}", arguments.join(" "));
        println!("$ {shown}");
        let output = self
            .command(program, arguments)
            .output()
            .with_context(|| format!("cannot start `{shown}`"))?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            bail!("`{shown}` failed ({}): {}", output.status, text.trim());
        }
        Ok(())
    }

    /// Downloads the package, and those of kernel and modules that it depends on.
    fn download(&self, package: &str) -> anyhow::Result<Vec<PathBuf>> {
        let (mut found, mut open) = (BTreeSet::new(), vec![package.to_owned()]);
        while let Some(package) = open.pop() {
            let depends = self.command("apt-cache", &["depends", "--important", &package]);
            let text = output(&mut { depends }).with_context(|| format!("apt has no {package}"))?;
            for package in depended_on(&text) {
                if found.insert(package.clone()) {
                    open.push(package);
                }
            }
        }
        if found.is_empty() {
            bail!("{package} depends on no kernel");
        }
        let packages: Vec<&str> = found.iter().map(String::as_str).collect();
        self.run("apt-get", &[&["download", "--quiet"], &packages[..]].concat())?;
        let entries = fs::read_dir(self.directory).context("cannot read the directory of packages")?;
        let paths = entries.flatten().map(|entry| entry.path());
        Ok(paths
            .filter(|path| path.extension().is_some_and(|e| e == "deb"))
            .collect())
    }
}

/// The packages of kernel and modules in what `apt-cache depends` says: those with a version in their name.
fn depended_on(text: &str) -> Vec<String> {
    let packages = text
        .lines()
        .filter_map(|line| line.trim().split_once("Depends: "))
        .map(|(_, name)| name);
    let is_kernel = |name: &&str| {
        ["linux-image-", "linux-base-", "linux-binary-", "linux-modules-"]
            .iter()
            .any(|prefix| {
                name.strip_prefix(prefix)
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            })
    };
    packages.filter(is_kernel).map(str::to_owned).collect()
}

/// Where this machine gets Debian from.
fn mirror() -> anyhow::Result<String> {
    let mut asked = Command::new("apt-get");
    asked.args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)",
    ]);
    let text = output(asked.arg("Created-By: Packages")).context("apt-get does not tell its sources")?;
    mirror_in(&text).context(
        "no mirror of Debian among this machine's package sources, or `apt-get update` was never run; the kernels to \
         try are Debian's",
    )
}

fn mirror_in(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let [origin, component, codename, uri] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        // Updates and security are parts of a suite, or lie elsewhere.
        let whole = !codename.contains('-');
        (origin == "Debian" && component == "main" && whole).then(|| uri.to_owned())
    })
}

/// Qemu and the shell of the guests are needed by this task alone, so they come when it is first run.
pub(super) fn find_or_install_qemu() -> anyhow::Result<()> {
    let wanted = [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("busybox", "busybox-static"),
        ("xz", "xz-utils"),
    ];
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(command, _)| which(command).is_none())
        .map(|(_, package)| *package)
        .collect();
    setup::install(&missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_a_whole_suite_of_debian() {
        let targets = "Other main stable http://other.example/apt/\n\
                       Debian main bookworm-security http://mirror.example/debian-security/\n\
                       Debian contrib bookworm http://mirror.example/contrib/\n\
                       Debian main bookworm http://mirror.example/debian/\n";
        assert_eq!(
            mirror_in(targets).as_deref(),
            Some("http://mirror.example/debian/")
        );
        assert_eq!(
            mirror_in("$(ORIGIN) main bookworm http://mirror.example/debian/\n"),
            None
        );
    }

    #[test]
    fn kernel_and_modules_are_found_among_dependencies() {
        let text = "linux-image-cloud-amd64\n  Depends: linux-base-cloud-amd64\n  \
                    Depends: linux-image-7.2.13+deb14-cloud-amd64\n";
        assert_eq!(depended_on(text), ["linux-image-7.2.13+deb14-cloud-amd64"]);
        let text = "linux-image-7.2.13+deb14-cloud-amd64\n  PreDepends: linux-base\n |Depends: dracut\n  \
                    Depends: linux-binary-7.2.13+deb14-cloud-amd64\n  \
                    Depends: linux-modules-7.2.13+deb14-cloud-amd64\n  Suggests: linux-doc-7.2\n";
        let expected = [
            "linux-binary-7.2.13+deb14-cloud-amd64",
            "linux-modules-7.2.13+deb14-cloud-amd64",
        ];
        assert_eq!(depended_on(text), expected);
    }
}
