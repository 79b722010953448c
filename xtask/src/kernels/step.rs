//! What runs in a guest, and what became of it.

use std::{fmt, time::Duration};

/// A command of the guest.
#[derive(Debug)]
pub(super) struct Step {
    /// One word, a column of the table and a file of its output.
    pub(super) name: &'static str,
    /// Which program of the image, with arguments.
    pub(super) command: &'static str,
    /// Seconds it may take.
    pub(super) seconds: u32,
    /// Part of `--quick`, too.
    pub(super) quick: bool,
}

/// For kernels on which the filter must work. Each load of the program takes seconds of a guest, so the quick steps are
/// those that load it seldom.
pub(super) static FULL: [Step; 6] = [
    Step {
        name: "largest",
        command: "kernel --nocapture --exact verifier::the_largest_tables_load_and_decide",
        seconds: 400,
        quick: true,
    },
    Step {
        name: "verifier",
        command: "kernel --nocapture --exact verifier::the_verifier_has_no_more_work_than_its_budget",
        seconds: 400,
        quick: true,
    },
    Step {
        name: "packets",
        command: "kernel --exact every_fixture_has_its_reason \
                  customers::final_responses_are_reported_to_their_remote_party",
        seconds: 400,
        quick: true,
    },
    Step {
        name: "live",
        command: "live --exact kernels::answers_are_observed_once_in_the_way_the_kernel_has",
        seconds: 400,
        quick: true,
    },
    Step {
        name: "decisions",
        command: "kernel --exact bans_stop_sip_in_every_wrapping_and_allowances_win \
                  an_expired_ban_hides_no_other_and_bans_end_in_the_kernel \
                  limits_hold_by_source_and_class_and_report_once_a_window \
                  simulation_passes_and_counts_what_it_would_have_dropped \
                  snapshots_carry_the_payload_and_are_capped \
                  customers::dropped_frames_are_copied_only_when_asked_for",
        seconds: 600,
        quick: false,
    },
    Step {
        name: "bans",
        command: "live --exact bans::bans_stop_sip_however_it_is_wrapped_and_the_allow_list_wins",
        seconds: 400,
        quick: false,
    },
];

/// For kernels that lack something.
pub(super) static REFUSAL: [Step; 1] = [Step {
    name: "refusal",
    command: "live --exact --ignored kernels::what_a_kernel_lacks_is_said_in_one_sentence",
    seconds: 60,
    quick: true,
}];

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepResult {
    Passed(Duration),
    /// With its exit code, if it ended at all.
    Failed(Option<i32>),
    /// Something before it took the guest along.
    NotReached,
}

impl fmt::Display for StepResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(time) => write!(f, "ok {} s", time.as_secs()),
            // What `timeout` returns.
            Self::Failed(Some(124 | 143)) => write!(f, "FAILED (time)"),
            Self::Failed(Some(code)) => write!(f, "FAILED {code}"),
            Self::Failed(None) => write!(f, "FAILED (no end)"),
            Self::NotReached => write!(f, "not reached"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn steps_have_names_of_their_own_and_some_of_each_kind_are_quick() {
        for steps in [&FULL[..], &REFUSAL[..]] {
            let names: BTreeSet<_> = steps.iter().map(|step| step.name).collect();
            assert_eq!(names.len(), steps.len());
            assert!(
                steps
                    .iter()
                    .all(|step| step.name.chars().all(|c| c.is_ascii_lowercase()))
            );
            assert!(steps.iter().any(|step| step.quick));
        }
    }
}
