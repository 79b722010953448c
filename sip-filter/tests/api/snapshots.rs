//! The JSON as other programs see it. A change here is a change of the interface.

use sip_filter::{
    api::{Lifetime, Service as _, types::*},
    bans::Scope,
};

use crate::support::fake::{Fake, target};

fn pretty(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

#[test]
fn answers() {
    let fake = Fake::default();
    fake.bans.lock().unwrap().push(Fake::detected());
    let bans = BanList {
        schema_version: SchemaVersion,
        bans: fake.bans(&BanFilter::default()).unwrap(),
    };
    insta::assert_snapshot!("list", pretty(&bans));
    insta::assert_snapshot!("status", pretty(&fake.status().unwrap()));
    insta::assert_snapshot!(
        "check",
        pretty(&fake.check("203.0.113.7".parse().unwrap()).unwrap())
    );
    let request = BanRequest {
        targets: vec![target("203.0.113.8"), target("2001:db8::/64")],
        lifetime: Some(Lifetime::Permanent),
        reason: "abuse".to_owned(),
        scope: Scope::All,
        force: false,
    };
    insta::assert_snapshot!("ban-request", pretty(&request));
    insta::assert_snapshot!("ban-results", pretty(&fake.ban(&request).unwrap()));
    insta::assert_snapshot!(
        "unban-requests",
        pretty(&[
            Unban::Targets(request.targets),
            Unban::Origin("manual".to_owned()),
            Unban::All(true)
        ])
    );
    insta::assert_snapshot!("allow", pretty(&fake.allowed().unwrap()));
    insta::assert_snapshot!(
        "top",
        pretty(&fake.top(TopQuery { limit: 1, seconds: 3 }).unwrap())
    );
    insta::assert_snapshot!("event", pretty(&fake.recent_events(1).unwrap()[0]));
    insta::assert_snapshot!("drops", pretty(&Fake::dropped(vec![0xde, 0xad])));
    insta::assert_snapshot!("mode", pretty(&fake.set_mode(Mode::Simulate).unwrap()));
    insta::assert_snapshot!("config", pretty(&fake.config().unwrap()));
    insta::assert_snapshot!("reload", pretty(&fake.reload().unwrap()));
    insta::assert_snapshot!("health", pretty(&fake.health().unwrap()));
}

#[test]
fn another_schema_version_is_an_error_that_says_so() {
    let error = serde_json::from_str::<BanList>(r#"{"schema_version":2,"bans":[]}"#).unwrap_err();
    assert!(error.to_string().contains("schema version 2"), "{error}");
    // New fields are no other version.
    serde_json::from_str::<BanList>(r#"{"schema_version":1,"bans":[],"more":1}"#).unwrap();
}
