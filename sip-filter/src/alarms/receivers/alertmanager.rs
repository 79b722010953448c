//! Alertmanager's API v2, for what cannot wait for Prometheus to scrape.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{DeliveryError, Receiver, http::Endpoint};
use crate::{alarms::Alarm, config};

#[derive(Debug)]
pub(super) struct Alertmanager {
    endpoint: Endpoint,
    repeat: Duration,
}

impl Alertmanager {
    pub(super) fn new(url: &str, config: &config::Alertmanager) -> Self {
        let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
        Self {
            endpoint: Endpoint::new(url, config.authorization_file.as_deref(), config.timeout),
            repeat: config.repeat,
        }
    }
}

impl Receiver for Alertmanager {
    fn name(&self) -> &'static str {
        "alertmanager"
    }

    fn repeat(&self) -> Option<Duration> {
        Some(self.repeat)
    }

    fn deliver(&mut self, alarms: &[Alarm]) -> Result<(), DeliveryError> {
        let alerts: Vec<Alert> = alarms.iter().map(Alert::from).collect();
        self.endpoint.post(&alerts)
    }
}

/// One alert, in API v2 and in a webhook's body. Labels are its identity and never name an address.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alert {
    labels: BTreeMap<&'static str, String>,
    annotations: BTreeMap<&'static str, String>,
    starts_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<String>,
}

impl From<&Alarm> for Alert {
    fn from(alarm: &Alarm) -> Self {
        let time = |time| humantime::format_rfc3339_millis(time).to_string();
        Self {
            labels: labels(alarm),
            annotations: BTreeMap::from([
                ("summary", alarm.summary.clone()),
                ("description", alarm.remedy.clone()),
                ("mode", alarm.mode.name().to_owned()),
            ]),
            starts_at: time(alarm.starts_at),
            ends_at: alarm.ends_at.map(time),
        }
    }
}

pub(super) fn labels(alarm: &Alarm) -> BTreeMap<&'static str, String> {
    let mut labels = BTreeMap::from([
        ("alertname", alarm.name.alert_name()),
        ("severity", alarm.severity.name().to_owned()),
        ("host", alarm.host.clone()),
        ("service", "sip-filter".to_owned()),
    ]);
    if !alarm.subject.is_empty() {
        labels.insert("subject", alarm.subject.clone());
    }
    labels
}
