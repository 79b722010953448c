//! The command line.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use ipnet::IpNet;

use super::values::{address, interface, interval, lifetime, network, scope, waiting};
use crate::{
    api::{Lifetime, types::Mode},
    bans::{Scope, Target},
};

/// Firewall for SIP servers: drops scanners, password guessers and floods before the network stack sees them.
///
/// `sip-filter run` is the daemon; all other verbs talk to it over its socket or work on files. Data goes to standard
/// output, everything else to standard error.
#[derive(Debug, Parser)]
#[command(name = "sip-filter", version, propagate_version = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// Options of all verbs.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, or already so; 1 failed, or `check` found no ban; 2 the command line or a file makes no sense; \
3 the daemon cannot be reached; 4 refused (allow-listed, own address, prefix too wide without --force); \
5 a table is full; 75 the daemon ended in order to be started again.";

/// Options of all verbs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of all verbs")]
pub struct Global {
    /// Control socket of the daemon [default: /run/sip-filter/api.sock].
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
    /// Form of the output: tables for people, JSON, or tab-separated fields without a header.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "human|json|raw",
        hide_possible_values = true
    )]
    pub output: Format,
    /// Print nothing but what was asked for, and errors.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log more; twice for everything.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and sentences.
    #[default]
    Human,
    /// One JSON document, as the API gives it.
    Json,
    /// Tab-separated fields, `-` for a missing one.
    Raw,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the daemon in the foreground
    Run(RunArgs),
    /// Ban addresses or networks
    #[command(
        after_help = "Examples:\n  sip-filter ban 203.0.113.7\n  sip-filter ban 203.0.113.7 2001:db8::/64 -d 7d \
        -R 'toll fraud'\n  sip-filter ban 198.51.100.0/24 -d permanent --scope all"
    )]
    Ban(BanArgs),
    /// Lift bans
    #[command(
        after_help = "Examples:\n  sip-filter unban 203.0.113.7\n  sip-filter unban --origin import\n  sip-filter \
        unban --all --yes"
    )]
    Unban(UnbanArgs),
    /// List bans
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Say whether an address is banned, why, and since when; exit code 0 if it is, 1 if not
    Check(CheckArgs),
    /// The allow-list: sources that are never dropped
    #[command(subcommand)]
    Allow(AllowVerb),
    /// Ban what a file lists, all of it or nothing
    #[command(after_help = IMPORT_HELP)]
    Import(ImportArgs),
    /// Write all bans in a form that `import` takes
    Export(ExportArgs),
    /// Show mode, interfaces, counters and tables
    Status,
    /// Watch traffic, sources and bans, and act on them
    ///
    /// A dashboard on a terminal, with `?` for its keys. Elsewhere, and with --once, -n or another form of output, the
    /// sources that send the most are printed once.
    Top(TopArgs),
    /// Show the latest events, or capture what is dropped
    #[command(
        after_help = "Examples:\n  sip-filter events -f -o json\n  sip-filter events --pcap dropped.pcap --limit 100\n  \
        sip-filter events --pcap - --timeout 10m | tshark -r -"
    )]
    Events(EventsArgs),
    /// Switch between dropping packets and only counting what would be dropped
    Mode(ModeArgs),
    /// Check, show or reload the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Check that everything works; exit code 0 if it does, 1 if not
    Health,
    /// Say what the filter would have done with the traffic in a capture
    Analyze(AnalyzeArgs),
    /// Take the filter off an interface, also when no daemon runs
    Detach(DetachArgs),
    /// As root, make the directory of pins for a daemon that runs as another user; the unit does it
    #[command(hide = true)]
    Prepare(PrepareArgs),
    /// Print completions for a shell
    #[command(
        after_help = "Example:\n  sip-filter completions bash > /usr/share/bash-completion/completions/sip-filter"
    )]
    Completions(CompletionsArgs),
    /// Print the manual page, or write one page per verb
    Man(ManArgs),
}

const IMPORT_HELP: &str = "\
Formats:
  plain  one address or network per line; what follows `#` or `;` is a comment
  csv    target,duration,reason; duration and reason may be left out
  json   what `export` writes, or an array of such bans

Examples:
  sip-filter import list.txt -d 7d -R 'shared list'
  ssh other sip-filter export | sip-filter import -";

/// Arguments of `run`.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Configuration file; without this, /etc/sip-filter/config.toml if it exists.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Interface to protect, or a pattern such as "eth*", once for each; replaces those of the configuration.
    #[arg(short, long = "interface", value_name = "IF", value_parser = interface)]
    pub interfaces: Vec<String>,
    /// Decide and count, but drop nothing.
    #[arg(long)]
    pub simulate: bool,
    /// Directory of the durable state; replaces that of the configuration.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
}

/// Arguments of `ban`.
#[derive(Clone, Debug, Args)]
pub struct BanArgs {
    /// Address or network; if one of them is refused, none is banned.
    #[arg(required = true, value_name = "ADDR|CIDR")]
    pub targets: Vec<Target>,
    /// How long: 90s, 1h30m, 7d, seconds, or `permanent` [default: as configured].
    #[arg(short, long, value_name = "TIME", value_parser = lifetime, allow_hyphen_values = true)]
    pub duration: Option<Lifetime>,
    /// Why, for whoever finds the ban.
    #[arg(short = 'R', long, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// What to stop: `sip` is traffic to protected ports, `all` is everything.
    #[arg(long, default_value = "sip", value_name = "sip|all", value_parser = scope)]
    pub scope: Scope,
    /// Ban a network that is wider than the configuration permits, or in which this host lies.
    #[arg(long)]
    pub force: bool,
}

/// Arguments of `unban`.
#[derive(Clone, Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["targets", "origin", "all"])))]
pub struct UnbanArgs {
    /// Address or network, as `list` shows it.
    #[arg(value_name = "ADDR|CIDR")]
    pub targets: Vec<Target>,
    /// All bans of this origin, such as `manual`, `import` or `detector`.
    #[arg(long, value_name = "ORIGIN")]
    pub origin: Option<String>,
    /// All bans; needs --yes.
    #[arg(long, requires = "yes")]
    pub all: bool,
    /// Yes, really all.
    #[arg(long)]
    pub yes: bool,
}

/// Arguments of `list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Only bans of this origin, such as `manual`, `import` or `detector`.
    #[arg(long)]
    pub origin: Option<String>,
    /// Only bans within this network.
    #[arg(long, value_name = "CIDR", value_parser = network)]
    pub contained: Option<IpNet>,
    /// At most so many.
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<usize>,
    /// Show under each ban what the rule saw; JSON always has it.
    #[arg(short, long)]
    pub evidence: bool,
}

/// Arguments of `check`.
#[derive(Clone, Copy, Debug, Args)]
pub struct CheckArgs {
    /// The address.
    #[arg(value_name = "ADDR", value_parser = address)]
    pub address: IpAddr,
}

/// Verbs of `allow`.
#[derive(Debug, Subcommand)]
pub enum AllowVerb {
    /// Add sources: none of their packets is dropped, bans or not
    Add {
        /// Address or network.
        #[arg(required = true, value_name = "ADDR|CIDR")]
        targets: Vec<Target>,
        /// Who that is.
        #[arg(short = 'R', long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Remove sources
    Remove {
        /// Address or network, as `allow list` shows it.
        #[arg(required = true, value_name = "ADDR|CIDR")]
        targets: Vec<Target>,
    },
    /// Show the allow-list
    List,
}

/// Arguments of `import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// The file, or `-` for standard input.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Format of the file.
    #[arg(long, value_enum, default_value_t)]
    pub format: ImportFormat,
    /// How long, for entries that don't say [default: as configured].
    #[arg(short, long, value_name = "TIME", value_parser = lifetime, allow_hyphen_values = true)]
    pub duration: Option<Lifetime>,
    /// Why, for entries that don't say.
    #[arg(short = 'R', long)]
    pub reason: Option<String>,
    /// What to stop, for entries that don't say.
    #[arg(long, default_value = "sip", value_name = "sip|all", value_parser = scope)]
    pub scope: Scope,
    /// Leave out lines that make no sense or are refused, and report them, instead of importing nothing.
    #[arg(long)]
    pub skip_invalid: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Ban networks that are wider than the configuration permits, or in which this host lies.
    #[arg(long)]
    pub force: bool,
}

/// Format of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    /// Find out.
    #[default]
    Auto,
    /// One address or network per line.
    Plain,
    /// `target,duration,reason`.
    Csv,
    /// As `export` writes it.
    Json,
}

/// Arguments of `export`.
#[derive(Clone, Copy, Debug, Args)]
pub struct ExportArgs {
    /// Format: `json` keeps everything, `csv` target, remaining time and reason, `plain` targets.
    #[arg(long, value_enum, default_value_t)]
    pub format: ExportFormat,
}

/// Format of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Everything.
    #[default]
    Json,
    /// `target,duration,reason`.
    Csv,
    /// Targets.
    Plain,
}

/// Arguments of `top`.
#[derive(Clone, Copy, Debug, Args)]
pub struct TopArgs {
    /// How many sources to print [default: 10]; not for the dashboard, which shows what fits.
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<usize>,
    /// Print once and end, also on a terminal.
    #[arg(short = '1', long)]
    pub once: bool,
    /// Time between two looks at the daemon, at least 100ms.
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
}

/// Arguments of `events`.
#[derive(Clone, Debug, Args)]
pub struct EventsArgs {
    /// Go on showing them as they happen.
    #[arg(short, long)]
    pub follow: bool,
    /// How many of the latest [default: 20]; with --pcap, after how many packets to end [default: 1000].
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<usize>,
    /// Write packets as they are dropped to this file, or with `-` to standard output, in pcap format: they never
    /// show in tcpdump. It holds what customers send, so it takes the right to change things.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "follow")]
    pub pcap: Option<PathBuf>,
    /// End the capture after this time [default: 60s].
    #[arg(long, value_name = "TIME", value_parser = waiting, requires = "pcap")]
    pub timeout: Option<Duration>,
}

/// Arguments of `mode`.
#[derive(Clone, Copy, Debug, Args)]
pub struct ModeArgs {
    /// The mode to be in, until the daemon is restarted or reloaded with another.
    #[arg(value_enum)]
    pub mode: Mode,
}

/// Verbs of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Check a configuration file, without a daemon
    Check {
        /// The file.
        #[arg(default_value = "/etc/sip-filter/config.toml", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Show the configuration in force, defaults included
    Show,
    /// Have the daemon read its configuration again; if it is bad, the old one stays in force
    Reload,
}

/// Arguments of `analyze`.
#[derive(Clone, Debug, Args)]
pub struct AnalyzeArgs {
    /// Capture in pcap or pcapng format, or `-` for standard input.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Configuration to judge by; without this, /etc/sip-filter/config.toml if it exists.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Address or network of the servers themselves: what they send is not judged. May be repeated.
    #[arg(long, value_name = "ADDR|CIDR")]
    pub own: Vec<Target>,
    /// How many sources to show.
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
    pub limit: usize,
}

/// Arguments of `detach`.
#[derive(Clone, Debug, Args)]
pub struct DetachArgs {
    /// The interface.
    #[arg(value_name = "IFACE", value_parser = interface, required_unless_present = "all")]
    pub interface: Option<String>,
    /// Every interface for which anything is pinned.
    #[arg(long, conflicts_with = "interface")]
    pub all: bool,
    /// Directory of the pins, if the configuration names another.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/sip-filter", value_hint = ValueHint::DirPath)]
    pub pin_root: PathBuf,
}

/// Arguments of `prepare`.
#[derive(Clone, Debug, Args)]
pub struct PrepareArgs {
    /// The user that the daemon runs as.
    #[arg(long, value_name = "USER")]
    pub user: String,
    /// Directory of the pins, if the configuration names another.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/sip-filter", value_hint = ValueHint::DirPath)]
    pub pin_root: PathBuf,
}

/// Arguments of `completions`.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Clone, Debug, Args)]
pub struct ManArgs {
    /// Write one page per verb into this directory instead of printing the main page.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Verb, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.verb)
    }

    #[test]
    fn what_makes_sense_is_understood() {
        for line in [
            "sip-filter run --interface eth0 --interface eth1 --simulate",
            "sip-filter run --config /etc/x.toml",
            "sip-filter ban 203.0.113.7 2001:db8::/32 -d 1h30m -R x --scope all",
            "sip-filter ban 203.0.113.7 -d permanent",
            "sip-filter unban 203.0.113.7 203.0.113.8",
            "sip-filter unban --origin detector",
            "sip-filter unban --all --yes",
            "sip-filter list -o json --contained 203.0.113.0/24",
            "sip-filter -o raw ls",
            "sip-filter check ::1 --socket /tmp/s",
            "sip-filter allow add 10.0.0.0/8",
            "sip-filter allow remove 10.0.0.0/8",
            "sip-filter allow list",
            "sip-filter import - --format csv",
            "sip-filter export",
            "sip-filter events -f",
            "sip-filter events --pcap x.pcap --limit 10 --timeout 2m",
            "sip-filter events --pcap -",
            "sip-filter list --evidence",
            "sip-filter mode simulate",
            "sip-filter config check",
            "sip-filter config show -q",
            "sip-filter health -vv",
            "sip-filter analyze x.pcap",
            "sip-filter detach eth0",
            "sip-filter completions fish",
            "sip-filter man --dir /tmp",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn what_makes_none_is_a_usage_error_that_names_the_argument() {
        for (line, words) in [
            ("sip-filter ban", "ADDR|CIDR"),
            (
                "sip-filter ban 300.1.1.1",
                "`300.1.1.1` is neither an IP address nor a network",
            ),
            ("sip-filter ban host.example", "host.example"),
            ("sip-filter ban 203.0.113.7 -d soon", "`soon` is not a duration"),
            ("sip-filter ban 203.0.113.7 -d 0", "no length"),
            ("sip-filter events --pcap x -f", "--follow"),
            ("sip-filter events --timeout 5s", "--pcap"),
            ("sip-filter events --pcap x --timeout permanent", "`permanent`"),
            ("sip-filter ban 203.0.113.7 --scope both", "`both` is neither"),
            ("sip-filter unban", "required"),
            ("sip-filter unban --all", "--yes"),
            ("sip-filter unban --all --yes 203.0.113.7", "cannot be used with"),
            ("sip-filter unban --origin x 203.0.113.7", "cannot be used with"),
            ("sip-filter check 203.0.113.0/24", "is not an IP address"),
            ("sip-filter mode on", "enforce"),
            ("sip-filter detach ../../x", "`../../x` is not the name"),
            ("sip-filter run -i eth0 -i far-too-long-a-name", "is not the name"),
            ("sip-filter frobnicate", "frobnicate"),
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(words), "{line}: {error}");
        }
    }
}
