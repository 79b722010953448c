//! `import` and `export`.

use std::{
    io::Read,
    path::Path,
    time::{Duration, SystemTime},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::{
    args::{ExportFormat, Format, ImportArgs},
    exit::{Error, Exit},
    list_file::{Defaults, Parsed, csv_field, parse},
    out::Out,
    text::{clean, count},
};
use crate::{
    api::{
        client::{Client, ClientError},
        types::{BanFilter, BanList, ImportReport, ImportRequest, SchemaVersion},
    },
    units,
};

/// Entries checked in one request, so that the progress shows.
const CHUNK: usize = 10_000;

/// Entries carried out in one request, all or none of them: some ten megabytes, and for so long no other change of the
/// list. Longer lists are carried out in steps of this size.
const WHOLE: usize = 100_000;

/// Longest list that is read: some two million entries as `export` writes them.
const LARGEST: usize = 512 << 20;

/// Longest line of a list, unless it is JSON.
const LONGEST_LINE: usize = 64 << 10;

/// Bytes read at a time.
const PIECE: u64 = 1 << 20;

/// Complaints printed one by one; the rest are only counted.
const COMPLAINTS: usize = 20;

/// What an import did, for `-o json`.
#[derive(Serialize)]
struct Summary {
    schema_version: SchemaVersion,
    dry_run: bool,
    added: u64,
    replaced: u64,
    unchanged: u64,
    expired: usize,
    skipped: Vec<Complaint>,
}

/// Something left out.
#[derive(Serialize)]
struct Complaint {
    number: usize,
    message: String,
}

pub(super) async fn import(client: &Client, args: ImportArgs, out: &mut Out) -> Result<Exit, Error> {
    let name = name_of(&args.file);
    let defaults = Defaults {
        lifetime: args.duration,
        reason: args
            .reason
            .clone()
            .unwrap_or_else(|| format!("imported from {name}")),
        scope: args.scope,
    };
    let text = read(&args.file)?;
    let mut parsed = parse(&text, args.format, &defaults, SystemTime::now()).map_err(|problem| {
        Error::Input(format!(
            "{name} cannot be read as a list of bans: {}",
            clean(&problem)
        ))
    })?;
    drop(text);
    let unit = parsed.unit;
    let bad: Vec<_> = std::mem::take(&mut parsed.bad)
        .into_iter()
        .map(|(number, message)| Complaint { number, message })
        .collect();
    complain(&name, unit, &bad, out);
    if !bad.is_empty() && !args.skip_invalid {
        return Err(Error::Input(format!(
            "{} of {name} make no sense, and nothing was imported; --skip-invalid leaves them out",
            count(bad.len(), unit)
        )));
    }

    // Once through for show: what the daemon would refuse is known before anything is changed.
    let mut rehearsal = ImportReport::default();
    if args.dry_run || !args.skip_invalid {
        rehearsal = send(client, &parsed, &args, true, out).await?;
        let refused = complaints(&rehearsal, &parsed);
        complain(&name, unit, &refused, out);
        if !refused.is_empty() && !args.skip_invalid {
            return Err(Error::Refused(format!(
                "{} of {name} are refused, and nothing was imported; --skip-invalid leaves them out",
                count(refused.len(), unit)
            )));
        }
    }
    let report = if args.dry_run {
        rehearsal
    } else {
        let report = send(client, &parsed, &args, false, out).await?;
        complain(&name, unit, &complaints(&report, &parsed), out);
        report
    };

    let mut skipped = bad;
    skipped.extend(complaints(&report, &parsed));
    let summary = Summary {
        schema_version: SchemaVersion,
        dry_run: args.dry_run,
        added: report.added,
        replaced: report.replaced,
        unchanged: report.unchanged,
        expired: parsed.expired,
        skipped,
    };
    match out.format {
        Format::Json => out.json(&summary)?,
        Format::Human => out.changed(sentence(&name, &summary))?,
        Format::Raw => out.raw(&[
            &summary.added.to_string(),
            &summary.replaced.to_string(),
            &summary.unchanged.to_string(),
            &summary.expired.to_string(),
            &summary.skipped.len().to_string(),
        ])?,
    }
    Ok(Exit::Done)
}

fn sentence(name: &str, summary: &Summary) -> String {
    let verb = if summary.dry_run {
        "would import"
    } else {
        "imported"
    };
    let all = summary.added + summary.replaced + summary.unchanged;
    if all == 0 && summary.expired == 0 && summary.skipped.is_empty() {
        return format!("there is nothing in {name}: no ban was imported");
    }
    let mut text = format!(
        "{verb} {name}: {} new, {} changed, {} already so",
        summary.added, summary.replaced, summary.unchanged
    );
    if summary.expired > 0 {
        text.push_str(&format!(", {} ended by now", summary.expired));
    }
    if !summary.skipped.is_empty() {
        text.push_str(&format!(", {} left out", summary.skipped.len()));
    }
    text
}

fn complaints(report: &ImportReport, parsed: &Parsed) -> Vec<Complaint> {
    report
        .skipped
        .iter()
        .map(|skipped| Complaint {
            number: parsed.numbers.get(skipped.index).copied().unwrap_or_default(),
            message: skipped.message.clone(),
        })
        .collect()
}

fn complain(name: &str, unit: &str, complaints: &[Complaint], out: &Out) {
    for Complaint { number, message } in complaints.iter().take(COMPLAINTS) {
        out.warn(format_args!("{name}: {unit} {number}: {}", clean(message)));
    }
    if complaints.len() > COMPLAINTS {
        out.warn(format_args!(
            "{name}: … and {} more",
            complaints.len() - COMPLAINTS
        ));
    }
}

/// Sends all entries in chunks and adds up the reports.
async fn send(
    client: &Client,
    parsed: &Parsed,
    args: &ImportArgs,
    dry_run: bool,
    out: &Out,
) -> Result<ImportReport, Error> {
    let total = parsed.entries.len();
    let bar = progress(total, if dry_run { "checking" } else { "importing" }, out);
    let mut sum = ImportReport::default();
    // Room is judged for a request as a whole.
    let size = if dry_run && !args.dry_run { CHUNK } else { WHOLE };
    for (index, entries) in parsed.entries.chunks(size).enumerate() {
        let done = index * size;
        let request = ImportRequest {
            entries: entries.to_vec(),
            dry_run,
            skip_invalid: args.skip_invalid,
            force: args.force,
        };
        let report = client
            .import(&request)
            .await
            .map_err(|error| failed(error, dry_run, done, total))?;
        sum.added += report.added;
        sum.replaced += report.replaced;
        sum.unchanged += report.unchanged;
        sum.skipped.extend(report.skipped.into_iter().map(|mut skipped| {
            skipped.index += done;
            skipped
        }));
        bar.inc(entries.len() as u64);
    }
    bar.finish_and_clear();
    Ok(sum)
}

fn failed(source: ClientError, dry_run: bool, done: usize, total: usize) -> Error {
    if dry_run || done == 0 {
        Error::Client(source)
    } else {
        Error::Partial { done, total, source }
    }
}

fn progress(total: usize, what: &'static str, out: &Out) -> ProgressBar {
    // Hidden by indicatif if standard error is no terminal.
    let target = if out.is_quiet() || total <= CHUNK {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(Some(total as u64), target).with_message(what);
    match ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn name_of(file: &Path) -> String {
    if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        clean(&file.display().to_string()).into_owned()
    }
}

fn read(file: &Path) -> Result<String, Error> {
    let failed = |source| Error::File {
        action: "read",
        path: name_of(file),
        source,
    };
    let bytes = if file == Path::new("-") {
        read_bounded(std::io::stdin().lock(), LARGEST)
    } else {
        read_bounded(std::fs::File::open(file).map_err(failed)?, LARGEST)
    };
    let bytes = bytes.map_err(failed)?.map_err(|problem| {
        Error::Input(format!(
            "{} cannot be read as a list of bans: {problem}; nothing was imported",
            name_of(file)
        ))
    })?;
    // What is not UTF-8 is no address either, and is reported with its line.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads to the end, unless it is too long for a list of bans or no text: a device has no end.
fn read_bounded(mut reader: impl Read, largest: usize) -> std::io::Result<Result<Vec<u8>, String>> {
    let mut bytes = Vec::new();
    // Line in progress: its number, and where it begins.
    let (mut line, mut begin) = (1, 0);
    loop {
        let old = bytes.len();
        if reader.by_ref().take(PIECE).read_to_end(&mut bytes)? == 0 {
            return Ok(Ok(bytes));
        }
        if bytes.len() > largest {
            return Ok(Err(format!(
                "it is longer than {} MiB, the largest list there is room for",
                largest >> 20
            )));
        }
        // `export` writes one ban a line, but other programs may write their JSON without line ends.
        let head = bytes.get(..bytes.len().min(LONGEST_LINE)).unwrap_or_default();
        let head = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(head);
        let json = matches!(head.trim_ascii_start().first(), Some(b'{' | b'['));
        for (index, byte) in bytes.iter().enumerate().skip(old) {
            if *byte == 0 {
                return Ok(Err(format!("line {line} has a byte of zero, so it is no text")));
            }
            if *byte == b'\n' {
                (line, begin) = (line + 1, index + 1);
            } else if index - begin >= LONGEST_LINE && !json {
                return Ok(Err(format!(
                    "line {line} is longer than {} KiB",
                    LONGEST_LINE >> 10
                )));
            }
        }
    }
}

pub(super) async fn export(client: &Client, format: ExportFormat, out: &mut Out) -> Result<Exit, Error> {
    let list = client.bans(&BanFilter::default()).await?;
    match format {
        ExportFormat::Json => export_json(&list, out)?,
        ExportFormat::Csv => {
            out.line("target,duration,reason")?;
            for ban in &list.bans {
                let rest = units::format_ban_time(ban.expires_in_seconds.map(Duration::from_secs));
                out.line(format_args!("{},{rest},{}", ban.target, csv_field(&ban.reason)))?;
            }
        }
        ExportFormat::Plain => {
            for ban in &list.bans {
                out.line(ban.target)?;
            }
        }
    }
    Ok(Exit::Done)
}

/// The answer of `GET /v1/bans` with one ban per line, for diff and grep.
fn export_json(list: &BanList, out: &mut Out) -> Result<(), Error> {
    out.text(&format!(
        "{{\"schema_version\":{},\"bans\":[",
        SchemaVersion::NUMBER
    ))?;
    for (index, ban) in list.bans.iter().enumerate() {
        out.text(if index == 0 { "\n" } else { ",\n" })?;
        let json = serde_json::to_string(ban).map_err(|error| Error::Output(error.into()))?;
        out.text(&json)?;
    }
    out.line("\n]}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reader: impl Read) -> String {
        read_bounded(reader, 4 << 20).unwrap().unwrap_err()
    }

    #[test]
    fn what_has_no_end_is_not_read_for_ever() {
        assert!(refused(std::io::repeat(0)).contains("line 1 has a byte of zero"));
        assert!(refused(std::io::repeat(b'1')).contains("line 1 is longer than 64 KiB"));
        assert!(
            refused(b"192.0.2.1\n".chain(std::io::repeat(b'1'))).contains("line 2 is longer than 64 KiB")
        );
        assert!(refused(std::io::repeat(b'\n')).contains("longer than 4 MiB"));
        assert!(refused(b"{".chain(std::io::repeat(b' '))).contains("longer than 4 MiB"));
    }

    #[test]
    fn what_is_long_but_a_list_is_read() {
        let line = [b'#'; LONGEST_LINE];
        let list = [&line[..], b"\n", &line, b"\n"].concat();
        assert_eq!(read_bounded(&list[..], 4 << 20).unwrap(), Ok(list.clone()));
        let json = format!("{{\"bans\":[{}]}}", " ".repeat(2 << 20));
        assert_eq!(
            read_bounded(json.as_bytes(), 4 << 20).unwrap(),
            Ok(json.clone().into_bytes())
        );
    }
}
