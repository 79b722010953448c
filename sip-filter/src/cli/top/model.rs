//! What the dashboard shows and where its user is in it. Pure: keys and answers go in, [`super::view`] draws it.

use std::{cmp::Reverse, net::IpAddr};

use crate::{
    api::{
        Lifetime,
        types::{BanEntry, Health, Mode, Status, Top, TopSource, name_of},
    },
    bans::Target,
};

/// One look at the daemon.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) status: Status,
    pub(super) health: Health,
    pub(super) top: Top,
}

/// The order of the sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Rate,
    Dropped,
    Hits,
    Source,
}

impl Sort {
    pub(super) const fn next(self) -> Self {
        match self {
            Self::Rate => Self::Dropped,
            Self::Dropped => Self::Hits,
            Self::Hits => Self::Source,
            Self::Source => Self::Rate,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Dropped => "dropped",
            Self::Hits => "hits",
            Self::Source => "source",
        }
    }
}

/// Which list the arrows move in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    #[default]
    Sources,
    Bans,
}

/// A change that waits for a yes, or is under way. It names its target: the rows move meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Ban(Target, Lifetime),
    Unban(Target),
    Allow(Target),
}

/// What lies over the lists and takes the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dialog {
    /// The filter is being typed; what it was before is put back by Esc.
    Filter {
        before: String,
    },
    /// How long to ban.
    Duration {
        target: Target,
        text: String,
        /// Nothing was typed yet: the first character replaces the proposal.
        fresh: bool,
        error: Option<String>,
    },
    /// Yes or no.
    Confirm(Change),
    /// Text to read, such as what `check` shows, from a line on.
    Text {
        title: String,
        lines: Vec<String>,
        from: usize,
    },
    Help,
}

/// What has to be done outside of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    Change(Change),
    Check(IpAddr),
}

/// A line for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) text: String,
    pub(super) bad: bool,
}

/// How the terminal is to be written to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terminal {
    pub(super) colour: bool,
    pub(super) unicode: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) terminal: Terminal,
    pub(super) look: Option<Look>,
    /// Why the daemon could not be asked the last time.
    pub(super) lost: Option<String>,
    /// Why this user may not change anything.
    pub(super) read_only: Option<String>,
    pub(super) paused: bool,
    pub(super) sort: Sort,
    pub(super) filter: String,
    pub(super) pane: Pane,
    /// The target marked in each list, and the row it was last seen in, for when it leaves the list.
    marked: [(Option<Target>, usize); 2],
    pub(super) dialog: Option<Dialog>,
    pub(super) message: Option<Message>,
}

impl Model {
    pub(super) fn new(terminal: Terminal) -> Self {
        Self {
            terminal,
            look: None,
            lost: None,
            read_only: None,
            paused: false,
            sort: Sort::default(),
            filter: String::new(),
            pane: Pane::default(),
            marked: [(None, 0); 2],
            dialog: None,
            message: None,
        }
    }

    /// Takes the daemon's answers, unless they are to stand still.
    pub(super) fn looked(&mut self, look: Result<Box<Look>, String>) {
        match look {
            Ok(look) => {
                self.lost = None;
                if !self.paused {
                    self.look = Some(*look);
                }
            }
            Err(why) => self.lost = Some(why),
        }
        self.settle();
    }

    /// The sources to show, in order.
    pub(super) fn sources(&self) -> Vec<&TopSource> {
        let Some(look) = &self.look else {
            return Vec::new();
        };
        let mut sources: Vec<&TopSource> = look.top.sources.iter().collect();
        sources.retain(|source| self.shows(&source_words(source)));
        match self.sort {
            Sort::Rate => sources.sort_by(|a, b| b.packets_per_second.total_cmp(&a.packets_per_second)),
            Sort::Dropped => sources.sort_by(|a, b| b.dropped_per_second.total_cmp(&a.dropped_per_second)),
            Sort::Hits => sources.sort_by_key(|source| Reverse(source.hits)),
            Sort::Source => sources.sort_by_key(|source| source.target),
        }
        sources
    }

    /// The newest bans to show, newest first.
    pub(super) fn bans(&self) -> Vec<&BanEntry> {
        let newest = self.look.iter().flat_map(|look| &look.top.newest_bans);
        newest.filter(|ban| self.shows(&ban_words(ban))).collect()
    }

    fn shows(&self, words: &str) -> bool {
        let wanted = self.filter.to_lowercase();
        wanted.split_whitespace().all(|word| words.contains(word))
    }

    fn targets(&self) -> Vec<Target> {
        match self.pane {
            Pane::Sources => self.sources().iter().map(|source| source.target).collect(),
            Pane::Bans => self.bans().iter().map(|ban| ban.target).collect(),
        }
    }

    /// The row of the mark in a list with these targets. It stays with its target, wherever that goes.
    pub(super) fn row(&self, pane: Pane, targets: &[Target]) -> Option<usize> {
        let (marked, row) = self.marked[pane as usize];
        let last = targets.len().checked_sub(1)?;
        let same = targets.iter().position(|target| Some(*target) == marked);
        Some(same.unwrap_or(row).min(last))
    }

    /// What the mark is on.
    pub(super) fn selected(&self) -> Option<Target> {
        let targets = self.targets();
        let row = self.row(self.pane, &targets)?;
        targets.get(row).copied()
    }

    /// Moves the mark.
    pub(super) fn go(&mut self, rows: isize) {
        let targets = self.targets();
        let Some(row) = self.row(self.pane, &targets) else {
            return;
        };
        let row = row.saturating_add_signed(rows).min(targets.len() - 1);
        self.marked[self.pane as usize] = (Some(targets[row]), row);
    }

    /// Puts the mark on a target again when its own has gone from the list: the next key concerns what is shown.
    fn settle(&mut self) {
        self.go(0);
    }

    pub(super) fn turn_to(&mut self, pane: Pane) {
        self.pane = pane;
        self.settle();
    }

    pub(super) fn filter_by(&mut self, filter: String) {
        self.filter = filter;
        self.settle();
    }

    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.message = Some(Message {
            text: text.into(),
            bad: false,
        });
    }

    pub(super) fn complain(&mut self, text: impl Into<String>) {
        self.message = Some(Message {
            text: text.into(),
            bad: true,
        });
    }

    pub(super) fn simulates(&self) -> bool {
        self.look
            .as_ref()
            .is_some_and(|look| look.status.mode == Mode::Simulate)
    }

    /// The ban of a target, as far as the lists show it.
    pub(super) fn ban_of(&self, target: Target) -> Option<Target> {
        let look = self.look.as_ref()?;
        let source = look.top.sources.iter().find(|source| source.target == target);
        let listed = look.top.newest_bans.iter().any(|ban| ban.target == target);
        match source {
            Some(source) if source.banned => Some(source.banned_by.unwrap_or(target)),
            _ => listed.then_some(target),
        }
    }
}

/// What the filter is looked for in.
fn source_words(source: &TopSource) -> String {
    format!(
        "{} {} {} {} {} {}",
        source.target,
        source.state(),
        source.standing(),
        source.class.as_deref().unwrap_or_default(),
        source.rule.as_deref().unwrap_or_default(),
        source.reason
    )
    .to_lowercase()
}

fn ban_words(ban: &BanEntry) -> String {
    format!(
        "{} banned {} {} {} {}",
        ban.target,
        ban.origin,
        ban.rule.as_deref().unwrap_or_default(),
        name_of(&ban.scope),
        ban.reason
    )
    .to_lowercase()
}
