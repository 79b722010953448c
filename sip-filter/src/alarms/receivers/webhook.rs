//! A webhook: the body is that of Alertmanager's webhooks, version 4, so that receivers made for it work.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    DeliveryError, Receiver,
    alertmanager::{Alert, labels},
    http::Endpoint,
};
use crate::{alarms::Alarm, config};

#[derive(Debug)]
pub(super) struct Webhook(Endpoint);

impl Webhook {
    pub(super) fn new(url: &str, config: &config::Webhook) -> Self {
        Self(Endpoint::new(
            url.to_owned(),
            config.authorization_file.as_deref(),
            config.timeout,
        ))
    }
}

impl Receiver for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    /// One request an alarm, so that the status of the whole is that of the alarm.
    fn deliver(&mut self, alarms: &[Alarm]) -> Result<(), DeliveryError> {
        alarms.iter().try_for_each(|alarm| self.0.post(&Body::new(alarm)))
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    version: &'static str,
    group_key: String,
    truncated_alerts: u32,
    status: &'static str,
    receiver: &'static str,
    group_labels: BTreeMap<&'static str, String>,
    common_labels: BTreeMap<&'static str, String>,
    common_annotations: BTreeMap<&'static str, String>,
    #[serde(rename = "externalURL")]
    external_url: &'static str,
    alerts: [Entry; 1],
}

#[derive(Debug, Serialize)]
struct Entry {
    status: &'static str,
    fingerprint: String,
    #[serde(flatten)]
    alert: Alert,
}

impl Body {
    fn new(alarm: &Alarm) -> Self {
        let labels = labels(alarm);
        let group = format!(
            "{{}}:{{alertname=\"{}\", host=\"{}\"}}",
            alarm.name.alert_name(),
            alarm.host
        );
        let mut group_labels = labels.clone();
        group_labels.retain(|name, _| matches!(*name, "alertname" | "host"));
        Self {
            version: "4",
            group_key: group,
            truncated_alerts: 0,
            status: alarm.status.name(),
            receiver: "sip-filter",
            group_labels,
            common_labels: labels,
            common_annotations: BTreeMap::new(),
            external_url: "",
            alerts: [Entry {
                status: alarm.status.name(),
                fingerprint: fingerprint(alarm),
                alert: Alert::from(alarm),
            }],
        }
    }
}

/// The same for an alarm and its end, another for any other alarm.
fn fingerprint(alarm: &Alarm) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (alarm.name, &alarm.subject, &alarm.host).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
