//! What the daemon offers to its clients.

use std::net::IpAddr;

use super::{
    ApiError, Feed,
    types::{
        AllowAdd, AllowEntry, AllowRemove, AllowResult, BanEntry, BanFilter, BanRequest, BanResult, Check,
        ConfigText, DroppedPacket, Event, Health, ImportReport, ImportRequest, Mode, ModeChange, Outcomes,
        ReloadReport, Status, Top, TopQuery, Unban, UnbanResult,
    },
};

/// The daemon as the API sees it. Methods may block (they run on blocking threads) and are called concurrently.
///
/// Everything that changes something is all or nothing: when it returns an error, nothing was changed. What lets packets
/// pass may hold without being saved, and then says so. Errors speak to
/// the operator and name the argument at fault.
pub trait Service: Send + Sync + 'static {
    /// Mode, interfaces, counters.
    fn status(&self) -> Result<Status, ApiError>;

    /// Whether the filter drops; cheap.
    fn mode(&self) -> Mode;

    /// The bans that match, by target, at most `filter.limit`.
    fn bans(&self, filter: &BanFilter) -> Result<Vec<BanEntry>, ApiError>;

    /// Everything known about one address.
    fn check(&self, ip: IpAddr) -> Result<Check, ApiError>;

    /// Bans by hand. One result per target, in their order; refused if any target is.
    fn ban(&self, request: &BanRequest) -> Result<Vec<BanResult>, ApiError>;

    /// Lifts bans. For [`Unban::Targets`] one result per target, for the others one per ban lifted.
    fn unban(&self, request: &Unban) -> Result<Outcomes<UnbanResult>, ApiError>;

    /// Takes over a list. Without `skip_invalid`, refused if any entry is; with `dry_run`, nothing is changed and
    /// refusals are reported as skipped.
    fn import(&self, request: &ImportRequest) -> Result<ImportReport, ApiError>;

    /// The allow-list, by target.
    fn allowed(&self) -> Result<Vec<AllowEntry>, ApiError>;

    /// Adds to it. One result per target.
    fn allow(&self, request: &AllowAdd) -> Result<Outcomes<AllowResult>, ApiError>;

    /// Removes from it. One result per target.
    fn disallow(&self, request: &AllowRemove) -> Result<Vec<AllowResult>, ApiError>;

    /// Sources by rate, the newest bans, the traffic of the last minutes.
    fn top(&self, query: TopQuery) -> Result<Top, ApiError>;

    /// The latest events, oldest first.
    fn recent_events(&self, limit: usize) -> Result<Vec<Event>, ApiError>;

    /// Events from now on.
    fn subscribe(&self) -> Feed<Event>;

    /// Packets dropped from now on. They are copied as long as a feed lives.
    fn drops(&self) -> Result<Feed<DroppedPacket>, ApiError>;

    /// Switches between dropping and counting only.
    fn set_mode(&self, mode: Mode) -> Result<ModeChange, ApiError>;

    /// The configuration in force.
    fn config(&self) -> Result<ConfigText, ApiError>;

    /// Reads the configuration file again; if it is bad, the old one stays in force.
    fn reload(&self) -> Result<ReloadReport, ApiError>;

    /// Whether everything works.
    fn health(&self) -> Result<Health, ApiError>;
}
