//! The kernel modules that a guest needs, taken out of a package with all that they depend on.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// What the tests use; where the kernel has it built in, there is nothing to load.
const WANTED: [&str; 6] = [
    "virtio_pci",
    "virtio_blk",
    "af_packet",
    "veth",
    "sch_ingress",
    "cls_bpf",
];

/// Puts what is wanted into the directory `to`, named so that they sort in the order in which to load them.
pub(super) fn collect(tree: &Path, release: &str, to: &Path) -> anyhow::Result<()> {
    let roots = ["lib/modules", "usr/lib/modules"].map(|root| tree.join(root).join(release));
    let root = roots
        .iter()
        .find(|root| root.is_dir())
        .with_context(|| format!("the packages have no modules of {release}"))?;
    let mut found = HashMap::new();
    index(root, &mut found)?;
    let builtin = fs::read_to_string(root.join("modules.builtin")).unwrap_or_default();
    let builtin: Vec<String> = builtin
        .lines()
        .filter_map(|path| name_of(Path::new(path)))
        .collect();

    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let (mut open, mut done) = (WANTED.map(str::to_owned).to_vec(), Vec::new());
    open.reverse();
    while let Some(name) = open.pop() {
        if done.contains(&name) || builtin.contains(&name) {
            continue;
        }
        let path = found
            .get(&name)
            .with_context(|| format!("kernel {release} has no module {name}"))?;
        let module = read(path)?;
        let missing: Vec<String> = dependencies(&module)
            .into_iter()
            .filter(|name| !done.contains(name) && !builtin.contains(name))
            .collect();
        if missing.is_empty() {
            let file = to.join(format!("{:02}-{name}.ko", done.len()));
            fs::write(&file, module).with_context(|| format!("cannot write {}", file.display()))?;
            done.push(name);
            continue;
        }
        if open.len() > 100 {
            bail!("the modules of {release} depend on each other in a circle, at {name}");
        }
        open.push(name);
        open.extend(missing);
    }
    Ok(())
}

/// Every module below a directory, by name.
fn index(directory: &Path, found: &mut HashMap<String, PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", directory.display()))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            index(&path, found)?;
        } else if let Some(name) = name_of(&path) {
            found.insert(name, path);
        }
    }
    Ok(())
}

/// Dashes and underscores are the same in names of modules.
fn name_of(path: &Path) -> Option<String> {
    let (name, rest) = path.file_name()?.to_str()?.split_once(".ko")?;
    ["", ".xz"].contains(&rest).then(|| name.replace('-', "_"))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let contents = if path.extension().is_some_and(|extension| extension == "xz") {
        let output = Command::new("xz").args(["-d", "-c"]).arg(path).output();
        let output = output.context("cannot start xz")?;
        if !output.status.success() {
            bail!("xz cannot unpack {}", path.display());
        }
        output.stdout
    } else {
        fs::read(path).with_context(|| format!("cannot read {}", path.display()))?
    };
    Ok(contents)
}

/// The line `depends=` of a module's information, a string between zeros.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..]
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_depend_on() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("tree/lib/modules/6.1.0");
        fs::create_dir_all(root.join("kernel/net")).unwrap();
        let module = |name: &str, depends: &str| {
            let contents = format!("ELF\0license=GPL\0depends={depends}\0name={name}\0");
            fs::write(root.join(format!("kernel/net/{name}.ko")), contents).unwrap();
        };
        module("virtio_blk", "virtio,virtio-ring");
        module("virtio", "");
        module("virtio-ring", "virtio");
        module("veth", "");
        module("unused", "");
        let builtin =
            "kernel/a/virtio_pci.ko\nkernel/a/af_packet.ko\nkernel/b/sch_ingress.ko\nkernel/b/cls_bpf.ko\n";
        fs::write(root.join("modules.builtin"), builtin).unwrap();
        let to = directory.path().join("modules");
        collect(&directory.path().join("tree"), "6.1.0", &to).unwrap();
        let mut names: Vec<_> = fs::read_dir(&to)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "00-virtio.ko",
                "01-virtio_ring.ko",
                "02-virtio_blk.ko",
                "03-veth.ko"
            ]
        );

        fs::remove_file(root.join("kernel/net/veth.ko")).unwrap();
        let error = collect(&directory.path().join("tree"), "6.1.0", &to).unwrap_err();
        assert!(error.to_string().contains("veth"), "{error}");
    }
}
