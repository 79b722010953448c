//! The sources once, as a table, JSON or fields.

use super::tables::why;
use crate::{
    api::{
        client::Client,
        types::{TopQuery, TopSource},
    },
    cli::{
        args::Format,
        exit::{Error, Exit},
        out::Out,
        text::{clean, stamp, table},
    },
};

pub(super) async fn print(client: &Client, limit: usize, out: &mut Out) -> Result<Exit, Error> {
    let answer = client.top(TopQuery { limit, seconds: 0 }).await?;
    match out.format {
        Format::Json => out.json(&answer)?,
        Format::Human if answer.sources.is_empty() => {
            out.note("nobody sends anything that is reported, and no ban has dropped anything");
        }
        Format::Human => {
            let text = source_table(&answer.sources, out.width());
            out.text(&text)?;
        }
        Format::Raw => answer
            .sources
            .iter()
            .try_for_each(|source| raw_source(source, out))?,
    }
    Ok(Exit::Done)
}

fn raw_source(source: &TopSource, out: &mut Out) -> Result<(), Error> {
    out.raw(&[
        &source.target.to_string(),
        &source.hits.to_string(),
        &source.last_hit.map(stamp).unwrap_or_default(),
        source.state(),
        source.rule.as_deref().unwrap_or_default(),
        &source.reason,
        &format!("{:.1}", source.packets_per_second),
        &format!("{:.1}", source.dropped_per_second),
        source.class.as_deref().unwrap_or_default(),
        source.standing(),
    ])
}

fn source_table(sources: &[TopSource], width: Option<u16>) -> String {
    let rows = sources
        .iter()
        .map(|source| {
            vec![
                format!("{:.1}", source.packets_per_second),
                format!("{:.1}", source.dropped_per_second),
                source.hits.to_string(),
                source.target.to_string(),
                source.state().to_owned(),
                match source.standing() {
                    "" => "-",
                    standing => standing,
                }
                .to_owned(),
                clean(source.class.as_deref().unwrap_or("-")).into_owned(),
                why(source),
            ]
        })
        .collect::<Vec<_>>();
    table(
        &[
            "PKT/S", "DROP/S", "HITS", "SOURCE", "STATE", "KNOWN", "CLASS", "WHY",
        ],
        &rows,
        width,
    )
}
