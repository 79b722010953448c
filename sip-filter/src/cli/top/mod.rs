//! `top`: a dashboard on a terminal, a table elsewhere.
//!
//! [`model`] is what is shown and [`keys`] what keys do to it, both pure; [`view`] draws it; [`live`] joins them with
//! terminal and daemon.

mod dialog;
mod keys;
mod live;
mod model;
mod plain;
mod tables;
mod traffic;
mod view;

use std::io::{self, IsTerminal as _};

use super::{
    args::{Format, TopArgs},
    exit::{Error, Exit},
    out::Out,
};
use crate::api::client::Client;

/// Sources without `--limit`.
const SOURCES: usize = 10;

pub(super) async fn top(client: &Client, args: TopArgs, out: &mut Out) -> Result<Exit, Error> {
    let seen = io::stdin().is_terminal() && io::stdout().is_terminal();
    if seen && out.format == Format::Human && !args.once && args.limit.is_none() {
        return live::run(client, args.interval, out).await;
    }
    plain::print(client, args.limit.unwrap_or(SOURCES), out).await
}

#[cfg(test)]
mod tests;
