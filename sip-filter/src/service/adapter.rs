//! The controller as the API's service.

use std::{net::IpAddr, time::SystemTime};

use sip_filter_common::{abi::ABI_VERSION, sip::Class};

use super::{
    detector::SharedEngine,
    health::health,
    numbers::{Numbers, by_class, by_reason},
    top::overview,
};
use crate::{
    api::{
        ApiError, ErrorKind, Feed, Lifetime, Service,
        types::{
            AllowAdd, AllowEntry, AllowRemove, AllowResult, BanBefore, BanEntry, BanFilter, BanOutcome,
            BanRequest, BanResult, Check, ConfigText, DroppedPacket, Event, EventCounts, Frame, Health,
            ImportEntry, ImportReport, ImportRequest, Interface, Mode, ModeChange, Outcomes, PastBan, Proven,
            ReloadReport, Rights, RuleCount, SchemaVersion, Skipped, Status, Table, Top, TopQuery, Trust,
            TrustedEndpoint, Unban, UnbanResult, name_of, seconds_until,
        },
    },
    bans::{AllowOrigin, Endpoint, Origin, Outcome, Past, Target},
    config::DEFAULT_PATH,
    daemon::{
        BanOrder, ControlError, ControlHandle, DroppedFrame, ErrorCode, Filter, ImportBan, ImportOptions,
        Length, Unban as UnbanOrder, chain, journal::JournalEvent,
    },
    dataplane::Egress,
    detect::{self, Rule},
    privileges,
};

pub(super) struct Adapter {
    pub(super) handle: ControlHandle,
    pub(super) engine: SharedEngine,
    pub(super) numbers: Numbers,
}

impl Service for Adapter {
    fn status(&self) -> Result<Status, ApiError> {
        let snapshot = self.numbers.snapshot();
        let allowed = self.handle.allowed().len() as u64;
        let mut sum = Sums::default();
        for interface in &snapshot.interfaces {
            sum.add(&interface.counters);
        }
        let tables = snapshot.interfaces.iter().flat_map(|interface| {
            interface.tables.iter().map(|table| Table {
                name: format!("{}/{}", interface.name, table.name),
                entries: table.entries,
                capacity: table.max_entries,
            })
        });
        let interfaces = snapshot.interfaces.iter().map(|interface| {
            let (egress, egress_problem) = match &interface.egress {
                Egress::None(why) => (None, Some(why.clone())),
                seen => (seen.name().map(str::to_owned), None),
            };
            Interface {
                name: interface.name.clone(),
                xdp_mode: interface.attached,
                attached: interface.attached.is_some(),
                problem: interface.problem.clone(),
                egress,
                egress_problem,
            }
        });
        let would_ban = snapshot.would_ban.iter().filter(|(_, count)| *count > 0);
        Ok(Status {
            schema_version: SchemaVersion,
            version: snapshot.version.to_owned(),
            abi_version: ABI_VERSION,
            mode: mode(snapshot.simulate),
            uptime_seconds: self.handle.uptime().as_secs(),
            rights: rights(),
            bans: snapshot.bans.iter().map(|bans| bans.count).sum(),
            allowed,
            trusted: snapshot.trusted,
            endpoints: snapshot.endpoints,
            proven: snapshot.proven,
            would_ban: would_ban
                .map(|(rule, count)| (rule.name().to_owned(), *count))
                .collect(),
            interfaces: interfaces.collect(),
            counters: sum.counters,
            would_drop: sum.would_drop,
            classes: sum.classes,
            events: sum.events,
            tables: tables.collect(),
        })
    }

    fn mode(&self) -> Mode {
        mode(self.handle.simulates())
    }

    fn bans(&self, filter: &BanFilter) -> Result<Vec<BanEntry>, ApiError> {
        let filter = Filter {
            origin: filter.origin.as_deref().map(origin).transpose()?,
            within: filter.contained.map(Target::network),
            limit: filter.limit,
        };
        let now = SystemTime::now();
        Ok(self
            .handle
            .list(&filter)
            .iter()
            .map(|ban| BanEntry::new(ban, now))
            .collect())
    }

    fn check(&self, ip: IpAddr) -> Result<Check, ApiError> {
        let checked = self.handle.check(ip);
        let (target, settings, clock) = self
            .handle
            .with(|controller, clock| (controller.source(ip), controller.config().detect.clone(), clock));
        let standing = self.engine.standing(target, clock.boot);
        let now = clock.wall;
        // What the kernel tells with the source's next packet, should there be one.
        let untold = |rule| {
            let since = clock.boot.saturating_sub(settings.settings(rule).window);
            let classes = Class::ALL
                .into_iter()
                .filter(|class| detect::counts(rule, *class));
            self.handle.with(|controller, _| {
                let planes = controller.planes();
                classes
                    .map(|class| {
                        planes
                            .iter()
                            .map(|plane| plane.untold(ip, class, since))
                            .sum::<u64>()
                    })
                    .sum::<u64>()
            })
        };
        let counters = standing.counters.iter().map(|counter| RuleCount {
            rule: counter.rule.name().to_owned(),
            count: counter.count + untold(counter.rule),
            threshold: counter.threshold,
            window_seconds: settings.settings(counter.rule).window.as_secs(),
        });
        Ok(Check {
            schema_version: SchemaVersion,
            address: ip,
            banned: checked.banned,
            bans: checked.bans.iter().map(|ban| BanEntry::new(ban, now)).collect(),
            allowed_by: checked.allowed_by,
            trust: checked.trust.map(|trust| Trust {
                account: trust.account,
                until: trust.until,
                until_in_seconds: seconds_until(trust.until, now),
                endpoints: trust.endpoints.into_iter().map(trusted_endpoint).collect(),
            }),
            proof: checked.proof.map(|proof| Proven {
                by: proof.by.name().to_owned(),
                until: proof.until,
                until_in_seconds: seconds_until(proof.until, now),
            }),
            counters: counters.collect(),
            history: checked.history.into_iter().map(past_ban).collect(),
        })
    }

    fn ban(&self, request: &BanRequest) -> Result<Vec<BanResult>, ApiError> {
        let order = BanOrder {
            targets: request.targets.clone(),
            length: length(request.lifetime),
            reason: request.reason.clone(),
            scope: request.scope,
            force: request.force,
        };
        let done = self.handle.ban(&order).map_err(api_error)?;
        let now = SystemTime::now();
        let results = done.into_iter().map(|done| BanResult {
            target: done.ban.target,
            outcome: match done.outcome {
                Outcome::Added => BanOutcome::Banned,
                Outcome::Replaced | Outcome::Extended => BanOutcome::Replaced,
                Outcome::Unchanged => BanOutcome::Unchanged,
            },
            scope: done.ban.scope,
            expires: done.ban.expires,
            expires_in_seconds: done.ban.expires.map(|end| seconds_until(end, now)),
            before: done.before.map(|before| BanBefore {
                origin: name_of(&before.origin),
                scope: before.scope,
                expires: before.expires,
                expires_in_seconds: before.expires.map(|end| seconds_until(end, now)),
            }),
        });
        Ok(results.collect())
    }

    fn unban(&self, request: &Unban) -> Result<Outcomes<UnbanResult>, ApiError> {
        let order = match request {
            Unban::Targets(targets) => UnbanOrder::Targets(targets.clone()),
            Unban::Origin(name) => UnbanOrder::Origin(origin(name)?),
            Unban::All(true) => UnbanOrder::All,
            Unban::All(false) => return Err(ApiError::usage("`all` must be true to lift all bans")),
        };
        let done = self.handle.unban(&order).map_err(api_error)?;
        let results = done.value.into_iter().map(|done| UnbanResult {
            target: done.target,
            removed: done.removed,
            still_banned_by: done.still_banned_by,
        });
        Ok(Outcomes {
            results: results.collect(),
            not_saved: done.unsaved.map(|error| chain(&*error)),
        })
    }

    fn import(&self, request: &ImportRequest) -> Result<ImportReport, ApiError> {
        let entries = request
            .entries
            .iter()
            .map(import_ban)
            .collect::<Result<Vec<_>, _>>()?;
        let options = ImportOptions {
            dry_run: request.dry_run,
            skip_refused: request.skip_invalid,
            force: request.force,
        };
        let imported = self.handle.import(entries, options).map_err(api_error)?;
        let skipped = imported
            .skipped
            .into_iter()
            .map(|(index, target, refusal)| Skipped {
                index,
                target,
                message: refusal.to_string(),
            });
        Ok(ImportReport {
            schema_version: SchemaVersion,
            added: imported.added,
            replaced: imported.replaced,
            unchanged: imported.unchanged,
            skipped: skipped.collect(),
        })
    }

    fn allowed(&self) -> Result<Vec<AllowEntry>, ApiError> {
        let entries = self
            .handle
            .allowed()
            .into_iter()
            .map(|(target, allowed)| AllowEntry {
                target,
                origin: match allowed.origin {
                    AllowOrigin::Config => "config".to_owned(),
                    AllowOrigin::Operator => "operator".to_owned(),
                },
                comment: allowed.comment,
                created: allowed.created,
            });
        Ok(entries.collect())
    }

    fn allow(&self, request: &AllowAdd) -> Result<Outcomes<AllowResult>, ApiError> {
        let done = self
            .handle
            .allow(&request.targets, &request.comment)
            .map_err(api_error)?;
        Ok(Outcomes {
            results: allow_results(&request.targets, done.value),
            not_saved: done.unsaved.map(|error| chain(&*error)),
        })
    }

    fn disallow(&self, request: &AllowRemove) -> Result<Vec<AllowResult>, ApiError> {
        let changed = self.handle.disallow(&request.targets).map_err(api_error)?;
        Ok(allow_results(&request.targets, changed))
    }

    fn top(&self, query: TopQuery) -> Result<Top, ApiError> {
        Ok(overview(self.handle.overview(query.limit, query.seconds)))
    }

    fn recent_events(&self, limit: usize) -> Result<Vec<Event>, ApiError> {
        Ok(self.handle.recent_events(limit).into_iter().map(event).collect())
    }

    fn subscribe(&self) -> Feed<Event> {
        Feed::new(self.handle.follow_events(), event)
    }

    fn drops(&self) -> Result<Feed<DroppedPacket>, ApiError> {
        let (frames, capture) = self.handle.capture_drops().map_err(api_error)?;
        Ok(Feed::holding(frames, dropped_packet, capture))
    }

    fn set_mode(&self, wanted: Mode) -> Result<ModeChange, ApiError> {
        let previous = self
            .handle
            .set_simulate(wanted == Mode::Simulate)
            .map_err(api_error)?;
        Ok(ModeChange {
            schema_version: SchemaVersion,
            mode: wanted,
            previous: mode(previous),
        })
    }

    fn config(&self) -> Result<ConfigText, ApiError> {
        let toml = self
            .handle
            .config()
            .to_toml()
            .map_err(|error| ApiError::internal(error.to_string()))?;
        let path = match &self.handle.source().path {
            Some(path) => Some(path.display().to_string()),
            None => std::path::Path::new(DEFAULT_PATH)
                .exists()
                .then(|| DEFAULT_PATH.to_owned()),
        };
        Ok(ConfigText {
            schema_version: SchemaVersion,
            path,
            toml,
        })
    }

    fn reload(&self) -> Result<ReloadReport, ApiError> {
        let reloaded = self.handle.reload().map_err(api_error)?;
        Ok(ReloadReport {
            schema_version: SchemaVersion,
            changed: reloaded.changed,
            needs_restart: reloaded.needs_restart.into_iter().map(str::to_owned).collect(),
        })
    }

    fn health(&self) -> Result<Health, ApiError> {
        Ok(health(&self.handle))
    }
}

/// What this process may do.
fn rights() -> Option<Rights> {
    let rights = privileges::Rights::read().ok()?;
    let user = nix::unistd::geteuid();
    let name = nix::unistd::User::from_uid(user).ok().flatten();
    Some(Rights {
        user: name.map_or_else(|| user.to_string(), |user| user.name),
        capabilities: rights.capabilities(),
        no_new_privileges: rights.no_new_privileges(),
    })
}

/// Counters of all interfaces together.
#[derive(Default)]
struct Sums {
    counters: std::collections::BTreeMap<String, u64>,
    would_drop: std::collections::BTreeMap<String, u64>,
    classes: std::collections::BTreeMap<String, u64>,
    events: EventCounts,
}

impl Sums {
    fn add(&mut self, counters: &sip_filter_common::abi::Counters) {
        let parts = [
            (&mut self.counters, by_reason(counters, false)),
            (&mut self.would_drop, by_reason(counters, true)),
            (&mut self.classes, by_class(counters)),
        ];
        for (sum, part) in parts {
            for (name, packets) in part {
                *sum.entry(name).or_default() += packets;
            }
        }
        self.events.lost += counters.events_lost;
        self.events.suppressed += counters.events_suppressed;
    }
}

pub(super) const fn mode(simulate: bool) -> Mode {
    if simulate { Mode::Simulate } else { Mode::Enforce }
}

fn origin(name: &str) -> Result<Origin, ApiError> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).map_err(|_| {
        ApiError::usage(format!(
            "no origin `{name}`; there are manual, import and detector"
        ))
    })
}

fn length(lifetime: Option<Lifetime>) -> Length {
    match lifetime {
        None => Length::Configured,
        Some(Lifetime::For(duration)) => Length::For(duration),
        Some(Lifetime::Until(end)) => Length::Until(end),
        Some(Lifetime::Permanent) => Length::Permanent,
    }
}

fn import_ban(entry: &ImportEntry) -> Result<ImportBan, ApiError> {
    let rule = |name: &String| {
        Rule::ALL
            .into_iter()
            .find(|rule| rule.name() == name)
            .ok_or_else(|| ApiError::usage(format!("{}: there is no detection rule `{name}`", entry.target)))
    };
    Ok(ImportBan {
        target: entry.target,
        length: length(entry.lifetime),
        reason: entry.reason.clone(),
        scope: entry.scope,
        origin: entry.origin.as_deref().map_or(Ok(Origin::Import), origin)?,
        rule: entry.rule.as_ref().map(rule).transpose()?,
        created: entry.created,
    })
}

fn past_ban((target, past): (Target, Past)) -> PastBan {
    PastBan {
        target,
        origin: name_of(&past.origin),
        rule: past.rule.map(|rule| rule.name().to_owned()),
        reason: past.reason,
        created: past.created,
        ended: past.ended,
        ended_by: name_of(&past.ended_by),
    }
}

fn allow_results(targets: &[Target], changed: Vec<bool>) -> Vec<AllowResult> {
    let results = targets.iter().zip(changed);
    results
        .map(|(target, changed)| AllowResult {
            target: *target,
            changed,
        })
        .collect()
}

fn dropped_packet(dropped: DroppedFrame) -> DroppedPacket {
    DroppedPacket {
        schema_version: SchemaVersion,
        time: dropped.time,
        reason: dropped.reason.name().to_owned(),
        length: dropped.length.into(),
        frame: Frame(dropped.frame.to_vec()),
        missed: 0,
    }
}

fn event(journal: JournalEvent) -> Event {
    let JournalEvent {
        schema_version: _,
        time,
        kind,
        target,
        origin,
        rule,
        account,
        message,
        shadow,
        evidence,
    } = journal;
    Event {
        schema_version: SchemaVersion,
        time,
        kind: kind.name().to_owned(),
        target,
        origin: origin.as_ref().map(name_of),
        rule: rule.map(|rule| rule.name().to_owned()),
        account,
        message,
        shadow,
        evidence,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn api_error(error: ControlError) -> ApiError {
    let kind = match error.code() {
        ErrorCode::Refused => ErrorKind::Refused,
        ErrorCode::Full => ErrorKind::Full,
        ErrorCode::Internal => ErrorKind::Internal,
    };
    let api = ApiError::new(kind, chain(&error));
    match error.hint() {
        Some(hint) => api.with_hint(hint),
        None => api,
    }
}

fn trusted_endpoint(endpoint: Endpoint) -> TrustedEndpoint {
    TrustedEndpoint {
        address: endpoint.address,
        protocol: endpoint.protocol,
        port: endpoint.port,
        hop_limit: endpoint.hops,
    }
}
