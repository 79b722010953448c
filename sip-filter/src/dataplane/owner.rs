//! Whose XDP program is in our way.

use std::fs;

use super::netlink::xdp_programs;

/// Names the programs on an interface for people: id, name, and the processes that hold them, as far as that can be
/// found out.
pub(super) fn describe(index: u32) -> String {
    let ids = xdp_programs(index).unwrap_or_default();
    let described: Vec<String> = ids.iter().map(|id| describe_one(*id)).collect();
    if described.is_empty() {
        return "of unknown id".to_owned();
    }
    described.join(", ")
}

fn describe_one(id: u32) -> String {
    let program = aya::programs::loaded_programs()
        .flatten()
        .find(|program| program.id() == id);
    let name = program
        .as_ref()
        .and_then(|program| program.name_as_str())
        .unwrap_or_default();
    let name = if name.is_empty() {
        String::new()
    } else {
        format!(" `{name}`")
    };
    let owner = program.and_then(|program| program.created_by_uid());
    let loaded = owner.map_or_else(String::new, |user| format!(", loaded by user {user}"));
    let held = holders(id);
    let held = match &held[..] {
        [] => String::new(),
        some => format!(", held by {}", some.join(" and ")),
    };
    format!("id {id}{name}{loaded}{held}")
}

/// Processes that hold a program, such as `xdp-loader (pid 712)`; three at most.
fn holders(id: u32) -> Vec<String> {
    let wanted = id.to_string();
    let holds = |text: &str| {
        let of_line = |line: &str| line.strip_prefix("prog_id:").map(str::trim) == Some(wanted.as_str());
        text.lines().any(of_line)
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let infos = fs::read_dir(format!("/proc/{pid}/fdinfo"));
            let infos = infos.into_iter().flatten().flatten();
            infos
                .filter_map(|info| fs::read_to_string(info.path()).ok())
                .any(|text| holds(&text))
        })
        .map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("{} (pid {pid})", name.trim())
        })
        .take(3)
        .collect()
}
