use super::*;

#[test]
fn what_is_absent_keeps_the_default_of_its_rule() {
    let config: DetectConfig = toml::from_str(
        "ban_time = '2m'\n[flood-invite]\nshadow = true\n[flood-other]\nthreshold = 7\nwindow = 30",
    )
    .unwrap();
    let mut expected = DetectConfig {
        ban_time: Duration::from_secs(120),
        ..DetectConfig::default()
    };
    expected.flood_invite.shadow = true;
    expected.flood_other.threshold = 7;
    expected.flood_other.window = Duration::from_secs(30);
    assert_eq!(config, expected);
    assert_eq!(config.flood_invite.threshold, 1500);
    assert_eq!(
        toml::from_str::<DetectConfig>("").unwrap(),
        DetectConfig::default()
    );
    assert_eq!(
        toml::from_str::<DetectConfig>("[flood-invite]\n[flood-options]").unwrap(),
        DetectConfig::default()
    );
}

#[test]
fn what_is_written_is_read_back() {
    let text = toml::to_string(&DetectConfig::default()).unwrap();
    assert_eq!(
        toml::from_str::<DetectConfig>(&text).unwrap(),
        DetectConfig::default()
    );
    assert!(
        text.contains("[flood-register]\nenabled = true\nwindow = \"10s\"\nthreshold = 500\n"),
        "{text}"
    );
}

#[test]
fn unknown_keys_are_refused() {
    for text in [
        "[flood-bye]",
        "[flood-invite]\ntreshold = 1",
        "[scanner-signature]\nagents = []",
        "x = 1",
    ] {
        assert!(toml::from_str::<DetectConfig>(text).is_err(), "{text}");
    }
}

#[test]
fn problems_are_named() {
    assert_eq!(DetectConfig::default().problems(), []);
    let mut config = DetectConfig {
        ban_time: Duration::ZERO,
        max_sources: 1,
        memory: Duration::ZERO,
        ..DetectConfig::default()
    };
    config.ban_time_max = Duration::ZERO;
    config.flood_options.threshold = 0;
    config.flood_other.window = Duration::from_millis(999);
    config.scanner_signature.extra_user_agents = vec!["ab*".into(), "*".into(), "abc".into()];
    let keys: Vec<String> = config.problems().into_iter().map(|(key, _)| key).collect();
    assert_eq!(
        keys,
        [
            "ban_time",
            "max_sources",
            "flood-options.threshold",
            "flood-other.window",
            "scanner-signature.extra_user_agents",
            "scanner-signature.extra_user_agents",
        ]
    );
    config = DetectConfig {
        ban_time_max: Duration::from_secs(59),
        ..DetectConfig::default()
    };
    assert_eq!(config.problems()[0].0, "ban_time_max");
}
