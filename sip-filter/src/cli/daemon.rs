//! `status`, `events`, `mode`, `config show|reload`, `health`.

use std::collections::BTreeMap;

use super::{
    args::{EventsArgs, Format},
    exit::{Error, Exit},
    out::Out,
    pcap,
    text::{clean, count, rough, stamp, table},
};
use crate::api::{
    client::{Client, ClientError},
    types::{Event, Mode, Status, name_of},
};

/// Events shown without `--limit`.
const EVENTS: usize = 20;

pub(super) async fn status(client: &Client, out: &mut Out) -> Result<Exit, Error> {
    let status = client.status().await?;
    match out.format {
        Format::Json => out.json(&status)?,
        Format::Human => {
            let text = status_text(&status, out);
            // Tables fit already.
            out.sentences(&text)?;
        }
        Format::Raw => raw_status(&status, out)?,
    }
    Ok(Exit::Done)
}

fn status_text(status: &Status, out: &Out) -> String {
    let mode = match status.mode {
        Mode::Enforce => "enforce".to_owned(),
        Mode::Simulate => out.alert("simulate (nothing is dropped)"),
    };
    let mut text = format!(
        "sip-filter {} (tables v{}), up {}\nmode:       {mode}\n",
        clean(&status.version),
        status.abi_version,
        rough(status.uptime_seconds),
    );
    for interface in &status.interfaces {
        let state = match interface.xdp_mode {
            Some(mode) if interface.attached => format!("attached ({})", name_of(&mode)),
            _ => match &interface.problem {
                Some(problem) => format!("{}: {}", out.alert("not attached"), clean(problem)),
                None => out.alert("not attached"),
            },
        };
        let egress = match (&interface.egress, &interface.egress_problem) {
            _ if !interface.attached => String::new(),
            (Some(egress), _) => format!(", responses seen ({})", clean(egress)),
            (None, Some(why)) => format!(", {}: {}", out.alert("responses not seen"), clean(why)),
            (None, None) => String::new(),
        };
        text.push_str(&format!(
            "interface:  {} {state}{egress}\n",
            clean(&interface.name)
        ));
    }
    if let Some(rights) = &status.rights {
        let held = match &rights.capabilities[..] {
            [] => "no capabilities".to_owned(),
            names => clean(&names.join(" ")).into_owned(),
        };
        text.push_str(&format!("rights:     user {}, {held}\n", clean(&rights.user)));
    }
    text.push_str(&format!(
        "bans:       {}\nallow-list: {}\nknown:      {} trusted at {}, {} proven\n",
        status.bans,
        count(usize::try_from(status.allowed).unwrap_or(usize::MAX), "source"),
        status.trusted,
        count(
            usize::try_from(status.endpoints).unwrap_or(usize::MAX),
            "endpoint"
        ),
        status.proven,
    ));
    if status.events.lost > 0 || status.events.suppressed > 0 {
        text.push_str(&format!(
            "events:     {} lost, {} suppressed\n",
            status.events.lost, status.events.suppressed
        ));
    }
    for (title, counters) in [
        ("PACKETS", &status.counters),
        ("WOULD DROP", &status.would_drop),
        ("WOULD BAN", &status.would_ban),
        ("CLASS", &status.classes),
    ] {
        if counters.values().any(|packets| *packets > 0) {
            text.push('\n');
            text.push_str(&counter_table(title, counters));
        }
    }
    if !status.tables.is_empty() {
        let rows = status
            .tables
            .iter()
            .map(|entry| {
                let percent = entry.entries.saturating_mul(100).checked_div(entry.capacity);
                vec![
                    clean(&entry.name).into_owned(),
                    entry.entries.to_string(),
                    entry.capacity.to_string(),
                    percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%")),
                ]
            })
            .collect::<Vec<_>>();
        text.push('\n');
        text.push_str(&table(
            &["TABLE", "ENTRIES", "CAPACITY", "FULL"],
            &rows,
            out.width(),
        ));
    }
    text
}

/// What is not zero, most first.
fn counter_table(title: &str, counters: &BTreeMap<String, u64>) -> String {
    let mut some: Vec<_> = counters.iter().filter(|(_, packets)| **packets > 0).collect();
    some.sort_by_key(|(_, packets)| std::cmp::Reverse(**packets));
    let rows = some
        .into_iter()
        .map(|(name, packets)| vec![clean(name).into_owned(), packets.to_string()])
        .collect::<Vec<_>>();
    table(&[title, "COUNT"], &rows, None)
}

fn raw_status(status: &Status, out: &mut Out) -> Result<(), Error> {
    out.raw(&["mode", status.mode.name()])?;
    out.raw(&["uptime_seconds", &status.uptime_seconds.to_string()])?;
    out.raw(&["version", &status.version])?;
    out.raw(&["abi_version", &status.abi_version.to_string()])?;
    for interface in &status.interfaces {
        let mode = interface.xdp_mode.map(|mode| name_of(&mode)).unwrap_or_default();
        let attached = if interface.attached {
            "attached"
        } else {
            "not-attached"
        };
        let egress = interface.egress.as_deref().unwrap_or_default();
        out.raw(&["interface", &interface.name, attached, &mode, egress])?;
    }
    if let Some(rights) = &status.rights {
        out.raw(&["rights", &rights.user, &rights.capabilities.join(" ")])?;
    }
    out.raw(&["bans", &status.bans.to_string()])?;
    out.raw(&["allowed", &status.allowed.to_string()])?;
    out.raw(&["trusted", &status.trusted.to_string()])?;
    out.raw(&["proven", &status.proven.to_string()])?;
    out.raw(&["endpoints", &status.endpoints.to_string()])?;
    for (kind, counters) in [
        ("counter", &status.counters),
        ("would_drop", &status.would_drop),
        ("would_ban", &status.would_ban),
        ("class", &status.classes),
    ] {
        for (name, packets) in counters {
            out.raw(&[kind, name, &packets.to_string()])?;
        }
    }
    out.raw(&["events", "lost", &status.events.lost.to_string()])?;
    out.raw(&["events", "suppressed", &status.events.suppressed.to_string()])?;
    for entry in &status.tables {
        out.raw(&[
            "table",
            &entry.name,
            &entry.entries.to_string(),
            &entry.capacity.to_string(),
        ])?;
    }
    Ok(())
}

pub(super) async fn events(client: &Client, args: EventsArgs, out: &mut Out) -> Result<Exit, Error> {
    if let Some(path) = &args.pcap {
        return pcap::capture(client, &args, path, out).await;
    }
    let mut events = client.events(args.limit.unwrap_or(EVENTS), args.follow).await?;
    while let Some(event) = events.next().await? {
        match out.format {
            Format::Json => out.json(&event)?,
            Format::Human => out.sentences(&event_line(&event))?,
            Format::Raw => out.raw(&[
                &stamp(event.time),
                &event.kind,
                &event.target.map(|target| target.to_string()).unwrap_or_default(),
                event.origin.as_deref().unwrap_or_default(),
                event.rule.as_deref().unwrap_or_default(),
                if event.shadow { "shadow" } else { "" },
                &event.message,
            ])?,
        }
        if args.follow {
            out.flush()?;
        }
    }
    if args.follow {
        out.flush()?;
        return Err(Error::Client(ClientError::Ended));
    }
    Ok(Exit::Done)
}

fn event_line(event: &Event) -> String {
    format!(
        "{} {:<14} {}{}",
        stamp(event.time),
        clean(&event.kind),
        if event.shadow { "(not enforced) " } else { "" },
        clean(&event.message)
    )
}

pub(super) async fn mode(client: &Client, mode: Mode, out: &mut Out) -> Result<Exit, Error> {
    let change = client.set_mode(mode).await?;
    match out.format {
        Format::Json => out.json(&change)?,
        Format::Human if change.mode == change.previous => {
            out.changed(format_args!(
                "the mode was already {}; nothing changed",
                change.mode.name()
            ))?;
        }
        Format::Human => out.changed(format_args!(
            "the mode is now {} (was {}): {}",
            change.mode.name(),
            change.previous.name(),
            match change.mode {
                Mode::Enforce => "packets are dropped",
                Mode::Simulate => "nothing is dropped, what would be is counted",
            }
        ))?,
        Format::Raw => out.raw(&[change.mode.name(), change.previous.name()])?,
    }
    Ok(Exit::Done)
}

pub(super) async fn show_config(client: &Client, out: &mut Out) -> Result<Exit, Error> {
    let config = client.config().await?;
    if out.format == Format::Json {
        out.json(&config)?;
    } else {
        match &config.path {
            Some(path) => out.note(format_args!("# from {}, defaults included", clean(path))),
            None => out.note("# defaults: there is no configuration file"),
        }
        out.text(&config.toml)?;
    }
    Ok(Exit::Done)
}

pub(super) async fn reload(client: &Client, out: &mut Out) -> Result<Exit, Error> {
    let report = client.reload().await?;
    match out.format {
        Format::Json => out.json(&report)?,
        Format::Human => {
            out.changed(if report.changed.is_empty() {
                "configuration reloaded; nothing changed".to_owned()
            } else {
                format!("configuration reloaded; changed: {}", report.changed.join(", "))
            })?;
            if !report.needs_restart.is_empty() {
                out.warn(format_args!(
                    "warning: takes effect at the next start only: {}",
                    report.needs_restart.join(", ")
                ));
            }
        }
        Format::Raw => {
            for key in &report.changed {
                out.raw(&["changed", key])?;
            }
            for key in &report.needs_restart {
                out.raw(&["needs-restart", key])?;
            }
        }
    }
    Ok(Exit::Done)
}

pub(super) async fn health(client: &Client, out: &mut Out) -> Result<Exit, Error> {
    let health = client.health().await?;
    match out.format {
        Format::Json => out.json(&health)?,
        Format::Human => {
            out.line(if health.healthy {
                "healthy".to_owned()
            } else {
                out.alert("not healthy")
            })?;
            for check in &health.checks {
                let state = if check.ok {
                    "ok".to_owned()
                } else {
                    out.alert("FAILED")
                };
                out.sentences(&format!(
                    "  {}: {state}: {}",
                    clean(&check.name),
                    clean(&check.message)
                ))?;
            }
            for condition in health
                .conditions
                .iter()
                .filter(|condition| !condition.name.is_fault())
            {
                let name = condition.name.name();
                let text = clean(&condition.text);
                out.sentences(&format!(
                    "  {name}: {}: {text}; {}",
                    out.alert("warning"),
                    condition.remedy
                ))?;
            }
        }
        Format::Raw => {
            for condition in &health.conditions {
                let severity = condition.severity.name();
                out.raw(&[
                    "condition",
                    condition.name.name(),
                    &condition.subject,
                    severity,
                    &condition.text,
                ])?;
            }
            for check in &health.checks {
                out.raw(&[
                    &check.name,
                    if check.ok { "ok" } else { "failed" },
                    &check.message,
                ])?;
            }
        }
    }
    Ok(if health.healthy { Exit::Done } else { Exit::Failure })
}
