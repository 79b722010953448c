//! `allow`.

use super::{
    args::{AllowVerb, Format},
    bans::mention_unsaved,
    exit::{Error, Exit},
    out::Out,
    text::{clean, stamp, table},
};
use crate::api::{
    client::Client,
    types::{AllowAdd, AllowEntry, AllowRemove, AllowResult, Targeted},
};

pub(super) async fn allow(client: &Client, verb: AllowVerb, out: &mut Out) -> Result<Exit, Error> {
    match verb {
        AllowVerb::Add { targets, reason } => {
            let request = AllowAdd {
                targets,
                comment: reason,
            };
            let answer = client.allow(&request).await?;
            report(&answer, ["added", "already"], out, |result| {
                let AllowResult { target, changed } = result;
                if *changed {
                    format!("allow-listed {target}: nothing from it is dropped")
                } else {
                    format!("{target} was already allow-listed; nothing changed")
                }
            })?;
        }
        AllowVerb::Remove { targets } => {
            let answer = client.disallow(&AllowRemove { targets }).await?;
            report(&answer, ["removed", "not-listed"], out, |result| {
                let AllowResult { target, changed } = result;
                if *changed {
                    format!("removed {target} from the allow-list")
                } else {
                    format!("{target} was not on the allow-list; nothing changed")
                }
            })?;
        }
        AllowVerb::List => list(client, out).await?,
    }
    Ok(Exit::Done)
}

fn report(
    answer: &Targeted<AllowResult>,
    [changed, unchanged]: [&str; 2],
    out: &mut Out,
    sentence: impl Fn(&AllowResult) -> String,
) -> Result<(), Error> {
    mention_unsaved(answer.not_saved.as_deref(), out);
    if out.format == Format::Json {
        return out.json(answer);
    }
    for result in &answer.results {
        match out.format {
            Format::Raw => out.raw(&[
                if result.changed { changed } else { unchanged },
                &result.target.to_string(),
            ])?,
            _ => out.changed(sentence(result))?,
        }
    }
    Ok(())
}

async fn list(client: &Client, out: &mut Out) -> Result<(), Error> {
    let answer = client.allowed().await?;
    match out.format {
        Format::Json => out.json(&answer),
        Format::Human if answer.allow.is_empty() => {
            out.note("the allow-list is empty");
            Ok(())
        }
        Format::Human => {
            let text = list_table(&answer.allow, out.width());
            out.text(&text)
        }
        Format::Raw => answer.allow.iter().try_for_each(|entry| {
            out.raw(&[
                &entry.target.to_string(),
                &entry.origin,
                &entry.created.map(stamp).unwrap_or_default(),
                &entry.comment,
            ])
        }),
    }
}

fn list_table(entries: &[AllowEntry], width: Option<u16>) -> String {
    let rows = entries
        .iter()
        .map(|entry| {
            vec![
                entry.target.to_string(),
                clean(&entry.origin).into_owned(),
                entry.created.map_or_else(|| "-".to_owned(), stamp),
                clean(&entry.comment).into_owned(),
            ]
        })
        .collect::<Vec<_>>();
    table(&["TARGET", "ORIGIN", "ADDED", "REASON"], &rows, width)
}
