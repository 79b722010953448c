//! A [`Service`] in memory. `192.0.2.1` is allow-listed, `192.0.2.2` finds the table full, `192.0.2.3` panics.

use std::{
    net::IpAddr,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use sip_filter::{
    api::{ApiError, Feed, Lifetime, Service, types::*},
    bans::{Ban, Evidence, Origin, Scope, Target},
    dataplane::XdpMode,
    detect::Rule,
};
use tokio::sync::broadcast;

/// The time at which everything in the fake happens.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_500_000_250)
}

pub(crate) fn target(text: &str) -> Target {
    text.parse().unwrap()
}

pub(crate) struct Fake {
    pub(crate) bans: Mutex<Vec<Ban>>,
    pub(crate) allowed: Mutex<Vec<AllowEntry>>,
    pub(crate) mode: Mutex<Mode>,
    pub(crate) healthy: Mutex<bool>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) drops: broadcast::Sender<DroppedPacket>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            bans: Mutex::default(),
            allowed: Mutex::new(vec![AllowEntry {
                target: target("192.0.2.1"),
                origin: "config".to_owned(),
                comment: "head office".to_owned(),
                created: None,
            }]),
            mode: Mutex::new(Mode::Enforce),
            healthy: Mutex::new(true),
            events: broadcast::channel(8).0,
            drops: broadcast::channel(8).0,
        }
    }
}

impl Fake {
    /// A ban as the detection makes it.
    pub(crate) fn detected() -> Ban {
        Ban {
            target: target("203.0.113.7"),
            origin: Origin::Detector,
            rule: Some(Rule::ScannerSignature),
            reason: "User-Agent of a scanner".to_owned(),
            scope: Scope::Sip,
            created: now() - Duration::from_secs(60),
            expires: Some(now() + Duration::from_secs(3540)),
            hits: 1234,
            last_hit: Some(now() - Duration::from_secs(3)),
            evidence: Some(Box::new(Evidence {
                count: 3,
                threshold: 1,
                window_seconds: 60,
                first_seen: now() - Duration::from_secs(61),
                last_seen: now() - Duration::from_secs(60),
                accounts: 0,
                proven: true,
                sample: vec![
                    "OPTIONS sip:100@198.51.100.1 SIP/2.0".to_owned(),
                    "User-Agent: friendly-scanner".to_owned(),
                ],
            })),
        }
    }

    pub(crate) fn event(kind: &str, message: &str) -> Event {
        Event {
            target: Some(target("203.0.113.7")),
            origin: Some("detector".to_owned()),
            rule: Some("scanner-signature".to_owned()),
            ..Event::new(now(), kind, message)
        }
    }

    pub(crate) fn dropped(frame: Vec<u8>) -> DroppedPacket {
        DroppedPacket {
            schema_version: SchemaVersion,
            time: now(),
            reason: "drop-ban-address".to_owned(),
            length: 1_400,
            frame: Frame(frame),
            missed: 0,
        }
    }

    fn judge(target: Target) -> Result<(), ApiError> {
        match target.to_string().as_str() {
            "192.0.2.1" => Err(ApiError::refused("192.0.2.1 is allow-listed")
                .with_hint("take it from the allow-list first: `sip-filter allow remove 192.0.2.1`")),
            "192.0.2.2" => Err(ApiError::full("the IPv4 ban table is full")),
            "192.0.2.3" => panic!("the test asks for a panic"),
            _ => Ok(()),
        }
    }

    fn put(&self, ban: Ban) -> BanOutcome {
        let mut bans = self.bans.lock().unwrap();
        match bans.iter_mut().find(|old| old.target == ban.target) {
            Some(old) if old.expires == ban.expires && old.reason == ban.reason => BanOutcome::Unchanged,
            Some(old) => {
                *old = ban;
                BanOutcome::Replaced
            }
            None => {
                bans.push(ban);
                bans.sort_by_key(|ban| ban.target);
                BanOutcome::Banned
            }
        }
    }
}

impl Service for Fake {
    fn status(&self) -> Result<Status, ApiError> {
        let count = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        Ok(Status {
            schema_version: SchemaVersion,
            version: "0.1.0".to_owned(),
            abi_version: 1,
            mode: self.mode(),
            uptime_seconds: 93_784,
            interfaces: vec![
                Interface {
                    name: "eth0".to_owned(),
                    xdp_mode: Some(XdpMode::Native),
                    problem: None,
                    attached: true,
                    egress: Some("tcx".to_owned()),
                    egress_problem: None,
                },
                Interface {
                    name: "eth1".to_owned(),
                    xdp_mode: None,
                    problem: None,
                    attached: false,
                    egress: None,
                    egress_problem: Some("the kernel has neither TCX nor clsact".to_owned()),
                },
            ],
            rights: Some(Rights {
                user: "sip-filter".to_owned(),
                capabilities: Vec::new(),
                no_new_privileges: true,
            }),
            bans: self.bans.lock().unwrap().len() as u64,
            allowed: 1,
            trusted: 41,
            endpoints: 42,
            proven: 43,
            would_ban: count(&[("flood-invite", 7)]),
            counters: count(&[
                ("drop-ban-address", 1_234_567),
                ("pass-request", 890),
                ("pass-fragment", 0),
            ]),
            would_drop: count(&[("drop-limit-register", 5)]),
            classes: count(&[("register", 1_000), ("invite", 20)]),
            events: EventCounts {
                lost: 1,
                suppressed: 2,
            },
            tables: vec![Table {
                name: "IPv4 ban".to_owned(),
                entries: 1,
                capacity: 524_288,
            }],
        })
    }

    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }

    fn bans(&self, filter: &BanFilter) -> Result<Vec<BanEntry>, ApiError> {
        Ok(self
            .bans
            .lock()
            .unwrap()
            .iter()
            .map(|ban| BanEntry::new(ban, now()))
            .filter(|ban| filter.origin.as_ref().is_none_or(|origin| *origin == ban.origin))
            .filter(|ban| filter.contained.is_none_or(|net| net.contains(&ban.target.net())))
            .take(filter.limit.unwrap_or(usize::MAX))
            .collect())
    }

    fn check(&self, ip: IpAddr) -> Result<Check, ApiError> {
        Self::judge(Target::address(ip)).or_else(|error| match error.kind {
            sip_filter::api::ErrorKind::Refused => Ok(()),
            _ => Err(error),
        })?;
        let mut bans: Vec<_> = self
            .bans
            .lock()
            .unwrap()
            .iter()
            .filter(|ban| ban.target.contains(ip))
            .map(|ban| BanEntry::new(ban, now()))
            .collect();
        bans.sort_by_key(|ban| std::cmp::Reverse(ban.target.net().prefix_len()));
        let allowed_by = (ip.to_string() == "192.0.2.1").then(|| target("192.0.2.1"));
        Ok(Check {
            schema_version: SchemaVersion,
            address: ip,
            banned: !bans.is_empty() && allowed_by.is_none(),
            history: vec![PastBan {
                target: Target::address(ip),
                origin: "detector".to_owned(),
                rule: Some("flood-register".to_owned()),
                reason: "900 REGISTER in 10s".to_owned(),
                created: now() - Duration::from_secs(90_000),
                ended: now() - Duration::from_secs(86_400),
                ended_by: "expired".to_owned(),
            }],
            bans,
            allowed_by,
            trust: Some(Trust {
                account: "alice".to_owned(),
                until: now() + Duration::from_secs(1800),
                until_in_seconds: 1800,
                endpoints: vec![TrustedEndpoint {
                    address: ip,
                    protocol: 17,
                    port: 5060,
                    hop_limit: 57,
                }],
            }),
            proof: Some(Proven {
                by: "registration".to_owned(),
                until: now() + Duration::from_secs(86_400),
                until_in_seconds: 86_400,
            }),
            counters: vec![RuleCount {
                rule: "auth-failure".to_owned(),
                count: 2,
                threshold: 5,
                window_seconds: 600,
            }],
        })
    }

    fn ban(&self, request: &BanRequest) -> Result<Vec<BanResult>, ApiError> {
        request
            .targets
            .iter()
            .try_for_each(|target| Self::judge(*target))?;
        let lifetime = request
            .lifetime
            .unwrap_or(Lifetime::For(Duration::from_secs(600)));
        let expires = lifetime.expires(now());
        Ok(request
            .targets
            .iter()
            .map(|target| BanResult {
                target: *target,
                outcome: self.put(Ban {
                    target: *target,
                    origin: Origin::Manual,
                    rule: None,
                    reason: request.reason.clone(),
                    scope: request.scope,
                    created: now(),
                    expires,
                    hits: 0,
                    last_hit: None,
                    evidence: None,
                }),
                scope: request.scope,
                expires,
                expires_in_seconds: expires.map(|end| seconds_until(end, now())),
                before: None,
            })
            .collect())
    }

    fn unban(&self, request: &Unban) -> Result<Outcomes<UnbanResult>, ApiError> {
        let mut bans = self.bans.lock().unwrap();
        let targets: Vec<Target> = match request {
            Unban::Targets(targets) => targets.clone(),
            Unban::Origin(origin) => {
                let all = bans.iter().map(|ban| BanEntry::new(ban, now()));
                all.filter(|ban| ban.origin == *origin)
                    .map(|ban| ban.target)
                    .collect()
            }
            Unban::All(true) => bans.iter().map(|ban| ban.target).collect(),
            Unban::All(false) => return Err(ApiError::usage("`all` must be true")),
        };
        Ok(targets
            .into_iter()
            .map(|target| {
                let before = bans.len();
                bans.retain(|ban| ban.target != target);
                UnbanResult {
                    target,
                    removed: bans.len() < before,
                    still_banned_by: bans
                        .iter()
                        .map(|ban| ban.target)
                        .find(|wider| wider.net().contains(&target.net())),
                }
            })
            .collect::<Vec<_>>()
            .into())
    }

    fn import(&self, request: &ImportRequest) -> Result<ImportReport, ApiError> {
        let mut report = ImportReport::default();
        for (index, entry) in request.entries.iter().enumerate() {
            match Self::judge(entry.target) {
                Err(error) if request.skip_invalid || request.dry_run => report.skipped.push(Skipped {
                    index,
                    target: entry.target,
                    message: error.message,
                }),
                Err(error) => return Err(error),
                Ok(()) if request.dry_run => report.added += 1,
                Ok(()) => {
                    let outcome = self.put(Ban {
                        target: entry.target,
                        origin: match entry.origin.as_deref() {
                            Some("detector") => Origin::Detector,
                            Some("manual") => Origin::Manual,
                            _ => Origin::Import,
                        },
                        rule: Rule::ALL
                            .into_iter()
                            .find(|rule| entry.rule.as_deref() == Some(rule.name())),
                        reason: entry.reason.clone(),
                        scope: entry.scope,
                        created: entry.created.unwrap_or_else(now),
                        expires: entry.lifetime.unwrap_or(Lifetime::Permanent).expires(now()),
                        hits: 0,
                        last_hit: None,
                        evidence: None,
                    });
                    match outcome {
                        BanOutcome::Banned => report.added += 1,
                        BanOutcome::Replaced => report.replaced += 1,
                        BanOutcome::Unchanged => report.unchanged += 1,
                    }
                }
            }
        }
        Ok(report)
    }

    fn allowed(&self) -> Result<Vec<AllowEntry>, ApiError> {
        Ok(self.allowed.lock().unwrap().clone())
    }

    fn allow(&self, request: &AllowAdd) -> Result<Outcomes<AllowResult>, ApiError> {
        let mut allowed = self.allowed.lock().unwrap();
        Ok(request
            .targets
            .iter()
            .map(|target| {
                let changed = !allowed.iter().any(|entry| entry.target == *target);
                if changed {
                    allowed.push(AllowEntry {
                        target: *target,
                        origin: "operator".to_owned(),
                        comment: request.comment.clone(),
                        created: Some(now()),
                    });
                }
                AllowResult {
                    target: *target,
                    changed,
                }
            })
            .collect::<Vec<_>>()
            .into())
    }

    fn disallow(&self, request: &AllowRemove) -> Result<Vec<AllowResult>, ApiError> {
        let mut allowed = self.allowed.lock().unwrap();
        Ok(request
            .targets
            .iter()
            .map(|target| {
                let before = allowed.len();
                allowed.retain(|entry| entry.target != *target);
                AllowResult {
                    target: *target,
                    changed: allowed.len() < before,
                }
            })
            .collect())
    }

    fn top(&self, query: TopQuery) -> Result<Top, ApiError> {
        let bans = self.bans.lock().unwrap();
        let sources = bans.iter().take(query.limit).map(|ban| TopSource {
            target: ban.target,
            packets_per_second: 1_234.5,
            dropped_per_second: 1_000.0,
            class: Some("register".to_owned()),
            hits: ban.hits,
            last_hit: ban.last_hit,
            banned: true,
            banned_by: None,
            expires_in_seconds: ban.expires.map(|end| seconds_until(end, now())),
            allowed: false,
            trusted: false,
            proven: true,
            rule: ban.rule.map(|rule| rule.name().to_owned()),
            reason: ban.reason.clone(),
        });
        let newest = bans.iter().take(query.limit).map(|ban| BanEntry {
            evidence: None,
            ..BanEntry::new(ban, now())
        });
        let series = |name: &str| [(name.to_owned(), vec![0, 7, 9])].into();
        Ok(Top {
            schema_version: SchemaVersion,
            sources: sources.collect(),
            newest_bans: newest.collect(),
            traffic: match query.seconds {
                0 => Traffic::default(),
                _ => Traffic {
                    classes: series("register"),
                    counters: series("drop-ban-address"),
                    would_drop: series("drop-limit-register"),
                },
            },
        })
    }

    fn recent_events(&self, limit: usize) -> Result<Vec<Event>, ApiError> {
        let mut events = vec![Self::event("ban", "banned 203.0.113.7 for 1h: scanner-signature")];
        events.truncate(limit);
        Ok(events)
    }

    fn subscribe(&self) -> Feed<Event> {
        Feed::new(self.events.subscribe(), |event| event)
    }

    fn drops(&self) -> Result<Feed<DroppedPacket>, ApiError> {
        Ok(Feed::new(self.drops.subscribe(), |packet| packet))
    }

    fn set_mode(&self, mode: Mode) -> Result<ModeChange, ApiError> {
        let previous = std::mem::replace(&mut *self.mode.lock().unwrap(), mode);
        Ok(ModeChange {
            schema_version: SchemaVersion,
            mode,
            previous,
        })
    }

    fn config(&self) -> Result<ConfigText, ApiError> {
        Ok(ConfigText {
            schema_version: SchemaVersion,
            path: Some("/etc/sip-filter/config.toml".to_owned()),
            toml: "simulate = false\n".to_owned(),
        })
    }

    fn reload(&self) -> Result<ReloadReport, ApiError> {
        Ok(ReloadReport {
            schema_version: SchemaVersion,
            changed: vec!["bans.time".to_owned()],
            needs_restart: vec!["api.socket".to_owned()],
        })
    }

    fn health(&self) -> Result<Health, ApiError> {
        let healthy = *self.healthy.lock().unwrap();
        Ok(Health {
            conditions: Vec::new(),
            schema_version: SchemaVersion,
            healthy,
            checks: vec![HealthCheck {
                name: "attached".to_owned(),
                ok: healthy,
                message: if healthy { "eth0 (native)" } else { "eth0 is down" }.to_owned(),
            }],
        })
    }
}
