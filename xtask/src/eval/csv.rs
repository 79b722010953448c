//! The raw figures, for other programs.

use std::fmt::Write as _;

use super::{agreement::Agreement, judge::Verdict, trial::Outcome};

/// One line for each cell of the scoreboard.
pub(super) fn csv(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "scenario,protection,kind,stopped,seconds_until_stopped,packets_until_stopped,first_ban_seconds,rules,bans,\
         longest_ban_seconds,attack_sent,attack_reached,sent_after_stop,reached_after_stop,alarms,credentials_refused,\
         accounts_answered,logins,customer_requests,customer_failures,slowest_ms,first_failure,customers_banned,\
         customer_packets,customer_packets_lost,impersonated_requests,impersonated_answered,analyze_agrees\n",
    );
    let optional = |value: Option<String>| value.unwrap_or_default();
    for outcome in outcomes {
        let _ = write!(text, "{},{},", outcome.scenario, outcome.protection.name());
        match &outcome.attack {
            Some(attacked) => {
                let (word, after, requests) = match attacked.verdict {
                    Verdict::Stopped { after, requests } => (
                        "yes",
                        Some(format!("{:.3}", after.as_secs_f64())),
                        Some(requests.to_string()),
                    ),
                    Verdict::TooLate { after, requests } => (
                        "too late",
                        Some(format!("{:.3}", after.as_secs_f64())),
                        Some(requests.to_string()),
                    ),
                    Verdict::Contained { .. } => ("contained", None, None),
                    Verdict::Served { .. } if attacked.verdict.is_good() => ("customer served", None, None),
                    Verdict::Served { .. } => ("customer not served", None, None),
                    Verdict::No => ("no", None, None),
                    Verdict::Void => ("void", None, None),
                };
                let rules: Vec<&str> = attacked.rules.iter().map(String::as_str).collect();
                let _ = write!(
                    text,
                    "attacker,{word},{},{},{},{},{},{},{},{},{},{},{},{},{},{},",
                    optional(after),
                    optional(requests),
                    optional(
                        attacked
                            .banned_after
                            .map(|time| format!("{:.3}", time.as_secs_f64()))
                    ),
                    rules.join(" "),
                    attacked.bans,
                    optional(attacked.longest.map(|time| time.as_secs().to_string())),
                    attacked.total.sent,
                    attacked.total.reached,
                    attacked.after.sent,
                    attacked.after.reached,
                    attacked.alarms.iter().cloned().collect::<Vec<_>>().join(" "),
                    attacked.refused,
                    attacked.accounts,
                    attacked.logins,
                );
            }
            None => text.push_str("customer,,,,,,,,,,,,,,,,"),
        }
        let served = &outcome.customers;
        let impersonated = outcome.attack.as_ref().and_then(|attacked| attacked.impersonated);
        let _ = writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{}",
            served.tally.tried,
            served.tally.failed,
            served.tally.slowest.as_millis(),
            served
                .tally
                .first_failure
                .clone()
                .unwrap_or_default()
                .replace(',', ";"),
            served.banned.join(" "),
            served.sent,
            served.lost,
            optional(impersonated.map(|(requests, _)| requests.to_string())),
            optional(impersonated.map(|(_, answered)| answered.to_string())),
            match &outcome.agreement {
                Some(Agreement::Same(_)) => "yes",
                Some(Agreement::Differs(_)) => "no",
                Some(Agreement::NotCompared(_)) | None => "",
            },
        );
    }
    text
}
