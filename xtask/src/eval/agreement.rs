//! Whether an analysis of what was on the wire decides as the running daemon did.

use xtask::lab::decisions::{self, Decisions};

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Agreement {
    /// The same decisions, so many of them.
    Same(usize),
    /// These are in one of the two only.
    Differs(Vec<String>),
    /// Not compared, since there was no whole capture.
    NotCompared(String),
}

impl Agreement {
    pub(super) fn of(live: &Decisions, analysis: &Decisions) -> Self {
        let difference = decisions::difference(live, analysis);
        if difference.is_empty() {
            Self::Same(live.len())
        } else {
            Self::Differs(difference)
        }
    }

    /// For people.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Same(0) => "yes: no decision".to_owned(),
            Self::Same(1) => "yes: 1 decision".to_owned(),
            Self::Same(count) => format!("yes: {count} decisions"),
            Self::Differs(lines) => {
                let more = lines.len().saturating_sub(SHOWN);
                let mut text = format!(
                    "NO: {}",
                    lines.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ")
                );
                if more > 0 {
                    text.push_str(&format!("; and {more} more"));
                }
                text
            }
            Self::NotCompared(why) => format!("not compared: {why}"),
        }
    }
}

/// Differences told one by one.
const SHOWN: usize = 6;
