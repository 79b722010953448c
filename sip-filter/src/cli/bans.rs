//! `ban`, `unban`, `list`, `check`.

use std::{net::IpAddr, time::SystemTime};

use super::{
    args::{BanArgs, Format, ListArgs, UnbanArgs},
    exit::{Error, Exit},
    out::Out,
    text::{ago, clean, count, ends, rough, stamp, table},
};
use crate::{
    api::{
        client::Client,
        types::{
            BanEntry, BanFilter, BanOutcome, BanRequest, BanResult, Check, Mode, TrustedEndpoint, Unban,
            UnbanResult, name_of,
        },
    },
    bans::Scope,
    units,
};

pub(super) async fn ban(client: &Client, args: BanArgs, out: &mut Out) -> Result<Exit, Error> {
    let request = BanRequest {
        targets: args.targets,
        lifetime: args.duration,
        reason: args.reason,
        scope: args.scope,
        force: args.force,
    };
    let answer = client.ban(&request).await?;
    match out.format {
        Format::Json => out.json(&answer)?,
        Format::Human => {
            for result in &answer.results {
                out.changed(ban_sentence(result))?;
            }
        }
        Format::Raw => {
            for result in &answer.results {
                out.raw(&[
                    &name_of(&result.outcome),
                    &result.target.to_string(),
                    &name_of(&result.scope),
                    &result.expires.map(stamp).unwrap_or_default(),
                ])?;
            }
        }
    }
    for result in answer.results.iter().take(SHOWN) {
        if let Some(warning) = less_than_before(result) {
            out.warn(warning);
        }
    }
    mention_simulate(answer.mode, out);
    Ok(Exit::Done)
}

fn lasting(expires_in_seconds: Option<u64>) -> String {
    match expires_in_seconds {
        Some(seconds) => format!(
            "for {}",
            units::format_duration(std::time::Duration::from_secs(seconds))
        ),
        None => "permanently".to_owned(),
    }
}

/// A ban may also be ended sooner or stop less by banning anew. Whoever did not mean that must learn of it.
fn less_than_before(result: &BanResult) -> Option<String> {
    let before = result.before.as_ref()?;
    let end = |expires: Option<SystemTime>| (expires.is_none(), expires);
    let shorter = end(result.expires) < end(before.expires);
    let narrower = before.scope == Scope::All && result.scope == Scope::Sip;
    let less = match (shorter, narrower) {
        (true, true) => "ends sooner and stops less",
        (true, false) => "ends sooner",
        (false, true) => "stops less",
        (false, false) => return None,
    };
    Some(format!(
        "warning: {} {less} than before: it was banned {} (scope {}, by {})",
        result.target,
        lasting(before.expires_in_seconds),
        name_of(&before.scope),
        clean(&before.origin),
    ))
}

fn ban_sentence(result: &BanResult) -> String {
    let BanResult { target, outcome, .. } = result;
    let lasting = lasting(result.expires_in_seconds);
    let scope = name_of(&result.scope);
    match outcome {
        BanOutcome::Banned => format!("banned {target} {lasting} (scope {scope})"),
        BanOutcome::Replaced => format!("changed the ban of {target}: now {lasting} (scope {scope})"),
        BanOutcome::Unchanged => format!("{target} was already banned {lasting} (scope {scope})"),
    }
}

/// It holds, and whoever did it must know for how long.
pub(super) fn mention_unsaved(why: Option<&str>, out: &Out) {
    if let Some(why) = why {
        out.warn(format_args!(
            "warning: this holds now, but is not saved and would not survive a restart: {}; saving is tried again by \
             itself, `sip-filter health` tells when all is saved",
            clean(why)
        ));
    }
}

fn mention_simulate(mode: Mode, out: &Out) {
    if mode == Mode::Simulate {
        out.note("note: the filter simulates and drops nothing; `sip-filter mode enforce` changes that");
    }
}

pub(super) async fn unban(client: &Client, args: UnbanArgs, out: &mut Out) -> Result<Exit, Error> {
    let request = match args.origin {
        Some(origin) => Unban::Origin(origin),
        None if args.all => Unban::All(true),
        None => Unban::Targets(args.targets),
    };
    let answer = client.unban(&request).await?;
    match out.format {
        Format::Json => out.json(&answer)?,
        Format::Human => {
            for result in answer.results.iter().take(SHOWN) {
                out.changed(unban_sentence(result))?;
            }
            if answer.results.len() > SHOWN {
                out.changed(format!(
                    "and {} more; {} bans lifted in all",
                    answer.results.len() - SHOWN,
                    answer.results.iter().filter(|result| result.removed).count()
                ))?;
            }
            if answer.results.is_empty() {
                out.changed("no such bans; nothing changed")?;
            }
        }
        Format::Raw => {
            for result in &answer.results {
                let outcome = if result.removed { "unbanned" } else { "not-banned" };
                let wider = result.still_banned_by.map(|wider| wider.to_string());
                out.raw(&[outcome, &result.target.to_string(), &wider.unwrap_or_default()])?;
            }
        }
    }
    mention_unsaved(answer.not_saved.as_deref(), out);
    let covered = answer
        .results
        .iter()
        .filter_map(|result| Some((result, result.still_banned_by?)));
    let mut more = 0;
    for (number, (result, wider)) in covered.enumerate() {
        if number >= SHOWN {
            more += 1;
            continue;
        }
        // Not a note: whoever lifts a ban and finds the customer still locked out must learn why.
        out.warn(format_args!(
            "warning: {} still lies in the ban of {wider}; lift that, too, or use `sip-filter allow add {0}`",
            result.target
        ));
    }
    if more > 0 {
        out.warn(format_args!(
            "warning: {more} more still lie in wider bans; `-o raw` names them"
        ));
    }
    Ok(Exit::Done)
}

/// Lines about single targets at most, where a command may concern a hundred thousand.
const SHOWN: usize = 20;

fn unban_sentence(result: &UnbanResult) -> String {
    if result.removed {
        format!("unbanned {}", result.target)
    } else {
        format!("{} was not banned; nothing changed", result.target)
    }
}

pub(super) async fn list(client: &Client, args: ListArgs, out: &mut Out) -> Result<Exit, Error> {
    // For people one more than they want to see, to know whether there are more.
    let more = usize::from(out.format == Format::Human);
    let filter = BanFilter {
        origin: args.origin,
        contained: args.contained,
        limit: args.limit.map(|limit| limit.saturating_add(more)),
    };
    let mut answer = client.bans(&filter).await?;
    let all = answer.bans.len();
    answer.bans.truncate(args.limit.unwrap_or(usize::MAX));
    match out.format {
        Format::Json => out.json(&answer)?,
        Format::Human if answer.bans.is_empty() => out.note("no bans"),
        Format::Human => {
            let now = SystemTime::now();
            if args.evidence {
                for ban in &answer.bans {
                    out.sentences(&ban_lines(ban, now).join("\n"))?;
                }
            } else {
                out.text(&list_table(&answer.bans, now, out.width()))?;
            }
            // After the bans, also where both go to one terminal.
            out.flush()?;
            let shown = count(answer.bans.len(), "ban");
            if all > answer.bans.len() {
                out.note(format_args!("{shown} of more; `--limit` sets how many are shown"));
            } else {
                out.note(shown);
            }
        }
        Format::Raw => {
            for ban in &answer.bans {
                raw_ban(ban, out)?;
            }
        }
    }
    Ok(Exit::Done)
}

fn raw_ban(ban: &BanEntry, out: &mut Out) -> Result<(), Error> {
    let seconds = ban.expires_in_seconds.map(|seconds| seconds.to_string());
    out.raw(&[
        &ban.target.to_string(),
        &ban.origin,
        ban.rule.as_deref().unwrap_or_default(),
        &name_of(&ban.scope),
        &stamp(ban.created),
        &ban.expires.map(stamp).unwrap_or_default(),
        &seconds.unwrap_or_default(),
        &ban.hits.to_string(),
        &ban.last_hit.map(stamp).unwrap_or_default(),
        &ban.reason,
    ])
}

fn list_table(bans: &[BanEntry], now: SystemTime, width: Option<u16>) -> String {
    let rows = bans
        .iter()
        .map(|ban| {
            vec![
                ban.target.to_string(),
                ends(ban.expires_in_seconds),
                name_of(&ban.scope),
                clean(&ban.origin).into_owned(),
                clean(ban.rule.as_deref().unwrap_or("-")).into_owned(),
                ban.hits.to_string(),
                ban.last_hit.map_or_else(|| "-".to_owned(), |time| ago(time, now)),
                clean(&ban.reason).into_owned(),
            ]
        })
        .collect::<Vec<_>>();
    let header = [
        "TARGET", "ENDS", "SCOPE", "ORIGIN", "RULE", "HITS", "LAST HIT", "REASON",
    ];
    table(&header, &rows, width)
}

pub(super) async fn check(client: &Client, address: IpAddr, out: &mut Out) -> Result<Exit, Error> {
    let answer = client.check(address).await?;
    match out.format {
        Format::Json => out.json(&answer)?,
        Format::Human => {
            out.sentences(&check_text(&answer, SystemTime::now()))?;
        }
        Format::Raw => {
            let verdict = if answer.banned {
                "banned"
            } else if answer.allowed_by.is_some() {
                "allowed"
            } else {
                "not-banned"
            };
            let ban = answer.bans.first();
            out.raw(&[
                &answer.address.to_string(),
                verdict,
                &ban.map(|ban| ban.target.to_string()).unwrap_or_default(),
                ban.and_then(|ban| ban.rule.as_deref()).unwrap_or_default(),
                &ban.and_then(|ban| ban.expires).map(stamp).unwrap_or_default(),
                ban.map(|ban| ban.reason.as_str()).unwrap_or_default(),
            ])?;
        }
    }
    Ok(if answer.banned { Exit::Done } else { Exit::Failure })
}

/// Endpoints shown in `check`; there may be hundreds behind one address.
const ENDPOINTS_SHOWN: usize = 8;

fn endpoint_lines(endpoints: &[TrustedEndpoint]) -> Vec<String> {
    let shown = endpoints.iter().take(ENDPOINTS_SHOWN).map(|endpoint| {
        let protocol = match endpoint.protocol {
            6 => "TCP",
            17 => "UDP",
            _ => "other",
        };
        format!(
            "    from {} {}, hop limit {}",
            protocol,
            std::net::SocketAddr::new(endpoint.address, endpoint.port),
            endpoint.hop_limit
        )
    });
    let mut lines: Vec<String> = shown.collect();
    if endpoints.len() > ENDPOINTS_SHOWN {
        lines.push(format!(
            "    and from {} more endpoints",
            endpoints.len() - ENDPOINTS_SHOWN
        ));
    }
    if endpoints.is_empty() {
        lines.push("    from no endpoint that is known: it has the limits of a stranger".to_owned());
    }
    lines
}

/// What is known of an address, for people.
pub(super) fn check_text(check: &Check, now: SystemTime) -> String {
    let mut lines = Vec::new();
    let address = check.address;
    lines.push(match check.allowed_by {
        Some(entry) => format!("{address} is allow-listed ({entry}): nothing from it is dropped"),
        None if check.banned => format!("{address} is banned"),
        None => format!("{address} is not banned"),
    });
    if let Some(trust) = &check.trust {
        lines.push(format!(
            "  trusted: {} is registered until {} (in {})",
            clean(&trust.account),
            stamp(trust.until),
            rough(trust.until_in_seconds),
        ));
        lines.extend(endpoint_lines(&trust.endpoints));
    }
    if let Some(proof) = &check.proof {
        lines.push(format!(
            "  proven: by {}, until {} (in {})",
            clean(&proof.by),
            stamp(proof.until),
            rough(proof.until_in_seconds),
        ));
    }
    for ban in &check.bans {
        lines.extend(ban_lines(ban, now).into_iter().map(|line| format!("  {line}")));
    }
    if !check.counters.is_empty() {
        lines.push("  counted now:".to_owned());
    }
    for counter in &check.counters {
        lines.push(format!(
            "    {}: {} within {} (threshold {})",
            clean(&counter.rule),
            counter.count,
            seconds(counter.window_seconds),
            counter.threshold,
        ));
    }
    if !check.history.is_empty() {
        lines.push("  earlier bans:".to_owned());
    }
    for past in &check.history {
        lines.push(format!(
            "    {} to {} ({}) by {}: {}",
            stamp(past.created),
            stamp(past.ended),
            clean(&past.ended_by),
            clean(past.rule.as_ref().unwrap_or(&past.origin)),
            clean(&past.reason)
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// A ban with all that is known of it.
fn ban_lines(ban: &BanEntry, now: SystemTime) -> Vec<String> {
    let rule = ban
        .rule
        .as_ref()
        .map(|rule| format!(", rule {rule}"))
        .unwrap_or_default();
    let mut lines = vec![format!(
        "{} by {}{}, scope {}, since {} ({}), ends {}",
        ban.target,
        clean(&ban.origin),
        clean(&rule),
        name_of(&ban.scope),
        stamp(ban.created),
        ago(ban.created, now),
        match ban.expires {
            Some(end) => format!("{} ({})", stamp(end), ends(ban.expires_in_seconds)),
            None => "never".to_owned(),
        }
    )];
    if !ban.reason.is_empty() {
        lines.push(format!("  reason: {}", clean(&ban.reason)));
    }
    let last = ban.last_hit.map(|time| format!(", last {}", ago(time, now)));
    lines.push(format!("  hits: {}{}", ban.hits, last.unwrap_or_default()));
    if let Some(evidence) = &ban.evidence {
        let accounts = match evidence.accounts {
            0 => String::new(),
            accounts => format!(", {accounts} accounts or numbers"),
        };
        lines.push(format!(
            "  evidence: {} within {} (threshold {}){accounts}, from {} to {}; the source was {}",
            evidence.count,
            seconds(evidence.window_seconds),
            evidence.threshold,
            stamp(evidence.first_seen),
            stamp(evidence.last_seen),
            if evidence.proven { "proven" } else { "not proven" },
        ));
        for sample in &evidence.sample {
            lines.push(format!("    | {}", clean(sample)));
        }
    }
    lines
}

fn seconds(seconds: u64) -> String {
    units::format_duration(std::time::Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::types::BanBefore;

    #[test]
    fn a_ban_that_is_less_than_the_one_before_says_so() {
        let at = |seconds: Option<u64>| {
            seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        };
        let result = |(now, scope), (before, scope_before)| BanResult {
            target: "192.0.2.1".parse().unwrap(),
            outcome: BanOutcome::Replaced,
            scope,
            expires: at(now),
            expires_in_seconds: now,
            before: Some(BanBefore {
                origin: "manual".to_owned(),
                scope: scope_before,
                expires: at(before),
                expires_in_seconds: before,
            }),
        };
        let (sip, all) = (Scope::Sip, Scope::All);
        for (now, before, words) in [
            (
                (Some(60), sip),
                (None, sip),
                Some("ends sooner than before: it was banned permanently"),
            ),
            (
                (Some(60), all),
                (Some(90), sip),
                Some("ends sooner than before: it was banned for 1m30s"),
            ),
            ((None, sip), (Some(90), all), Some("stops less than before")),
            (
                (Some(60), sip),
                (None, all),
                Some("ends sooner and stops less than before"),
            ),
            ((Some(90), sip), (Some(60), sip), None),
            ((None, all), (Some(60), sip), None),
        ] {
            let warning = less_than_before(&result(now, before));
            match words {
                Some(words) => assert!(warning.as_ref().unwrap().contains(words), "{warning:?}"),
                None => assert_eq!(warning, None),
            }
        }
    }
}
