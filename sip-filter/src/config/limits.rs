//! `[limits]`, `[limits_trusted]` and `[budget]`: what one source, one trusted source, and all untrusted sources
//! together may send, by traffic class.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sip_filter_common::{abi, sip::Class};

use crate::units::{self, Rate};

/// A sustained rate, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitRate(pub Option<Rate>);

impl LimitRate {
    const fn per_second(count: u64) -> Self {
        Self(Some(Rate {
            count,
            per: std::time::Duration::from_secs(1),
        }))
    }
}

impl fmt::Display for LimitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rate) => rate.fmt(f),
            None => f.write_str("unlimited"),
        }
    }
}

impl Serialize for LimitRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LimitRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        units::parse_rate(&text).map(Self).map_err(D::Error::custom)
    }
}

/// The limit of one class for one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LimitSetting {
    /// Sustained.
    pub rate: LimitRate,
    /// Packets at once.
    pub burst: u32,
}

impl LimitSetting {
    const fn per_second(count: u64, burst: u32) -> Self {
        Self {
            rate: LimitRate::per_second(count),
            burst,
        }
    }

    /// What permits more of the two, rate and burst each.
    #[must_use]
    pub fn looser(self, other: Self) -> Self {
        let faster = match (self.rate.0, other.rate.0) {
            (None, _) | (_, None) => LimitRate(None),
            (Some(a), Some(b)) if a.count as u128 * b.per.as_nanos() < b.count as u128 * a.per.as_nanos() => {
                other.rate
            }
            _ => self.rate,
        };
        Self {
            rate: faster,
            burst: self.burst.max(other.burst),
        }
    }

    /// In the kernel's arithmetic.
    #[must_use]
    pub fn kernel(self) -> abi::Limit {
        self.rate.0.map_or(abi::Limit::UNLIMITED, |rate| {
            let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
            abi::Limit::new(rate.count, per, u64::from(self.burst))
        })
    }
}

/// Limits of all classes.
///
/// The defaults start from whom they must never hurt: an office of 80 phones behind one address that registers anew
/// all at once after a power cut, and a call centre with 50 calls a second through digest authentication (two
/// INVITEs each). Attackers are caught by the detection rules; these limits only cap what one source can cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawLimits")]
pub struct Limits {
    /// REGISTER.
    pub register: LimitSetting,
    /// INVITE.
    pub invite: LimitSetting,
    /// OPTIONS.
    pub options: LimitSetting,
    /// SUBSCRIBE.
    pub subscribe: LimitSetting,
    /// Every other method.
    pub other: LimitSetting,
    /// Responses.
    pub response: LimitSetting,
    /// CRLF, STUN, empty datagrams.
    pub keepalive: LimitSetting,
    /// Everything else.
    pub garbage: LimitSetting,
}

impl Default for Limits {
    fn default() -> Self {
        Self::PLAIN
    }
}

/// `[limits_trusted]`: limits of one trusted source, that is, one with a registration in force. By default ten times
/// [`Limits`]: only what no customer's site could send is held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawLimits", into = "Limits")]
pub struct TrustedLimits(pub Limits);

impl Default for TrustedLimits {
    fn default() -> Self {
        Self(Limits::TRUSTED)
    }
}

impl From<TrustedLimits> for Limits {
    fn from(limits: TrustedLimits) -> Self {
        limits.0
    }
}

/// `[budget]`: what all sources that are neither trusted nor allow-listed may send together. It ends a flood from a
/// million forged addresses, each of which stays below its own limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RawBudget")]
pub struct Budget {
    /// While the budget is short, sources that were never seen before get one part in so many of it; 1 treats them as
    /// those that return.
    pub fresh_part: u32,
    /// The budget of each class.
    #[serde(flatten)]
    pub limits: Limits,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            fresh_part: FRESH_PART,
            limits: Limits::BUDGET,
        }
    }
}

impl Budget {
    /// What sources never seen before get while the budget is short, in the kernel's arithmetic.
    #[must_use]
    pub fn fresh(&self, class: Class) -> abi::Limit {
        let setting = self.limits.of(class);
        let whole = setting.kernel();
        let part = self.fresh_part.max(1);
        if part == 1 || whole.interval == 0 {
            return abi::Limit::UNLIMITED;
        }
        let interval = whole.interval.saturating_mul(part.into());
        let burst = setting.burst.div_ceil(part);
        abi::Limit {
            interval,
            tolerance: interval.saturating_mul(u64::from(burst.saturating_sub(1))),
        }
    }
}

const FRESH_PART: u32 = 8;

impl Limits {
    const PLAIN: Self = Self {
        register: LimitSetting::per_second(20, 400),
        invite: LimitSetting::per_second(100, 500),
        options: LimitSetting::per_second(50, 200),
        subscribe: LimitSetting::per_second(50, 400),
        other: LimitSetting::per_second(1_000, 2_000),
        response: LimitSetting::per_second(1_000, 2_000),
        keepalive: LimitSetting::per_second(200, 1_000),
        garbage: LimitSetting::per_second(200, 1_000),
    };

    const TRUSTED: Self = Self {
        register: LimitSetting::per_second(200, 4_000),
        invite: LimitSetting::per_second(1_000, 5_000),
        options: LimitSetting::per_second(500, 2_000),
        subscribe: LimitSetting::per_second(500, 4_000),
        other: LimitSetting::per_second(10_000, 20_000),
        response: LimitSetting::per_second(10_000, 20_000),
        keepalive: LimitSetting::per_second(2_000, 10_000),
        garbage: LimitSetting::per_second(2_000, 10_000),
    };

    // Registered customers are trusted and take no part; what remains are first registrations, calls from sources
    // nobody knows, and forgers.
    const BUDGET: Self = Self {
        register: LimitSetting::per_second(200, 2_000),
        invite: LimitSetting::per_second(500, 2_000),
        options: LimitSetting::per_second(200, 1_000),
        subscribe: LimitSetting::per_second(200, 2_000),
        other: LimitSetting::per_second(2_000, 5_000),
        response: LimitSetting::per_second(10_000, 20_000),
        keepalive: LimitSetting::per_second(20_000, 40_000),
        garbage: LimitSetting::per_second(500, 1_000),
    };

    /// The limit of a class.
    #[must_use]
    pub const fn of(&self, class: Class) -> LimitSetting {
        match class {
            Class::Register => self.register,
            Class::Invite => self.invite,
            Class::Options => self.options,
            Class::Subscribe => self.subscribe,
            Class::OtherRequest => self.other,
            Class::Response => self.response,
            Class::KeepAlive => self.keepalive,
            Class::Garbage => self.garbage,
        }
    }
}

/// As written: what is left out of a class's table is that class's default, not a common one.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    register: RawLimit,
    invite: RawLimit,
    options: RawLimit,
    subscribe: RawLimit,
    other: RawLimit,
    response: RawLimit,
    keepalive: RawLimit,
    garbage: RawLimit,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLimit {
    rate: Option<LimitRate>,
    burst: Option<u32>,
}

impl RawLimit {
    fn or(self, default: LimitSetting) -> LimitSetting {
        LimitSetting {
            rate: self.rate.unwrap_or(default.rate),
            burst: self.burst.unwrap_or(default.burst),
        }
    }
}

impl RawLimits {
    fn or(self, default: &Limits) -> Limits {
        Limits {
            register: self.register.or(default.register),
            invite: self.invite.or(default.invite),
            options: self.options.or(default.options),
            subscribe: self.subscribe.or(default.subscribe),
            other: self.other.or(default.other),
            response: self.response.or(default.response),
            keepalive: self.keepalive.or(default.keepalive),
            garbage: self.garbage.or(default.garbage),
        }
    }
}

impl From<RawLimits> for Limits {
    fn from(raw: RawLimits) -> Self {
        raw.or(&Self::PLAIN)
    }
}

impl From<RawLimits> for TrustedLimits {
    fn from(raw: RawLimits) -> Self {
        Self(raw.or(&Limits::TRUSTED))
    }
}

/// As [`RawLimits`]; serde cannot flatten what refuses unknown fields.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawBudget {
    fresh_part: Option<u32>,
    register: RawLimit,
    invite: RawLimit,
    options: RawLimit,
    subscribe: RawLimit,
    other: RawLimit,
    response: RawLimit,
    keepalive: RawLimit,
    garbage: RawLimit,
}

impl From<RawBudget> for Budget {
    fn from(raw: RawBudget) -> Self {
        let limits = RawLimits {
            register: raw.register,
            invite: raw.invite,
            options: raw.options,
            subscribe: raw.subscribe,
            other: raw.other,
            response: raw.response,
            keepalive: raw.keepalive,
            garbage: raw.garbage,
        };
        Self {
            fresh_part: raw.fresh_part.unwrap_or(FRESH_PART),
            limits: limits.or(&Limits::BUDGET),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_default_of_that_class() {
        let limits: Limits = toml::from_str("[register]\nrate = \"30/s\"\n[garbage]\nburst = 5\n").unwrap();
        assert_eq!(limits.register, LimitSetting::per_second(30, 400));
        assert_eq!(limits.garbage, LimitSetting::per_second(200, 5));
        assert_eq!(limits.invite, Limits::default().invite);
    }

    #[test]
    fn each_section_has_its_own_defaults() {
        let text = "[register]\nrate = \"30/s\"\n";
        let trusted: TrustedLimits = toml::from_str(text).unwrap();
        assert_eq!(trusted.0.register, LimitSetting::per_second(30, 4_000));
        let budget: Budget = toml::from_str(text).unwrap();
        assert_eq!(budget.limits.register, LimitSetting::per_second(30, 2_000));
        for class in Class::ALL {
            let (plain, trusted) = (Limits::PLAIN.of(class), Limits::TRUSTED.of(class));
            let rate = |limit: LimitSetting| limit.rate.0.unwrap().count;
            assert_eq!(rate(trusted), 10 * rate(plain), "{class:?}");
            assert_eq!(trusted.burst, 10 * plain.burst, "{class:?}");
        }
    }

    #[test]
    fn the_looser_limit_is_told_across_units() {
        let limit = |rate: &str, burst: u32| LimitSetting {
            rate: LimitRate(units::parse_rate(rate).unwrap()),
            burst,
        };
        for (a, b, looser) in [
            (limit("1/s", 9), limit("61/m", 3), limit("61/m", 9)),
            (limit("1/s", 9), limit("3500/h", 30), limit("1/s", 30)),
            (limit("1/s", 1), limit("unlimited", 1), limit("unlimited", 1)),
        ] {
            assert_eq!(a.looser(b), looser);
            assert_eq!(b.looser(a), looser);
        }
    }

    #[test]
    fn unlimited_is_unlimited() {
        let limits: Limits = toml::from_str("register.rate = \"unlimited\"").unwrap();
        assert_eq!(limits.register.kernel(), abi::Limit::UNLIMITED);
    }
}
