//! What happens to a packet and why.
//!
//! Every packet leaves the program with exactly one [`Reason`]. The numbers are part of the interface (metrics,
//! events, stored captures): a number is never reused, and a retired reason keeps its number.

/// What the data plane does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Hand the packet to the kernel's network stack.
    Pass,
    /// Drop it before the stack sees it.
    Drop,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $action:ident, $name:literal, $text:literal;)*) => {
        /// Why a packet passed or was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $text] $variant = $number,)*
        }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name used in metrics, JSON and documentation.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for the operator.
            #[must_use]
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What this reason does to a packet when the filter enforces.
            pub const fn action(self) -> Action {
                match self { $(Self::$variant => Action::$action,)* }
            }
        }
    };
}

reasons! {
    PassNotIp = 0, Pass, "pass-not-ip", "Not IPv4 or IPv6 (ARP, LLDP, …).";
    PassOtherPort = 1, Pass, "pass-other-port", "IP traffic to a port or protocol that is not protected.";
    PassTruncated = 2, Pass, "pass-truncated", "A header is cut short or contradicts itself; left to the kernel to judge.";
    PassTooDeep = 3, Pass, "pass-too-deep", "More VLAN tags or IPv6 extension headers than are followed.";
    PassFragment = 4, Pass, "pass-fragment", "A later fragment of a source that is not banned; it has no port to look at.";
    PassMapError = 5, Pass, "pass-map-error", "A table could not be read; nothing is dropped on doubt.";
    PassAllowed = 6, Pass, "pass-allowed", "To a protected port, from an allow-listed source.";
    PassAllowedBanned = 7, Pass, "pass-allowed-banned", "From a banned address or network that the allow-list exempts.";
    PassRequest = 8, Pass, "pass-request", "A SIP request within its limits.";
    PassResponse = 9, Pass, "pass-response", "A SIP response within its limits.";
    PassKeepAlive = 10, Pass, "pass-keepalive", "A keep-alive (CRLF, STUN, empty datagram) within its limits.";
    PassOtherPayload = 11, Pass, "pass-other-payload", "Payload on a protected port that is not SIP, within its limits.";
    PassStream = 12, Pass, "pass-stream", "A TCP segment to a protected port that does not begin a SIP message.";
    DropBanAddress = 32, Drop, "drop-ban-address", "The source address is banned.";
    DropBanNetwork = 33, Drop, "drop-ban-network", "The source lies in a banned network.";
    DropLimitRegister = 40, Drop, "drop-limit-register", "More REGISTER requests from this source than its limit.";
    DropLimitInvite = 41, Drop, "drop-limit-invite", "More INVITE requests from this source than its limit.";
    DropLimitOptions = 42, Drop, "drop-limit-options", "More OPTIONS requests from this source than its limit.";
    DropLimitSubscribe = 43, Drop, "drop-limit-subscribe", "More SUBSCRIBE requests from this source than its limit.";
    DropLimitOther = 44, Drop, "drop-limit-other", "More requests of other methods from this source than its limit.";
    DropLimitResponse = 45, Drop, "drop-limit-response", "More SIP responses from this source than its limit.";
    DropLimitKeepAlive = 46, Drop, "drop-limit-keepalive", "More keep-alives from this source than its limit.";
    DropLimitGarbage = 47, Drop, "drop-limit-garbage", "More non-SIP payload from this source than its limit.";
    DropUnknownBudget = 48, Drop, "drop-unknown-budget", "More of this class from all untrusted sources together than their shared budget.";
}

impl Reason {
    /// Length of arrays indexed by reason; a power of two above the highest number.
    pub const SLOTS: usize = 64;

    /// Reasons with this number or a higher one drop, those below pass: what to do follows from the number alone.
    pub const FIRST_DROP: u8 = 32;

    /// The reason with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| *reason as u8 == number)
    }
}

const _: () = {
    let mut index = 0;
    while index < Reason::ALL.len() {
        let reason = Reason::ALL[index];
        assert!(
            (reason as usize) < Reason::SLOTS,
            "a reason outgrew the counter array"
        );
        let drops = matches!(reason.action(), Action::Drop);
        assert!(
            drops == (reason as u8 >= Reason::FIRST_DROP),
            "a reason's number tells its action"
        );
        index += 1;
    }
};

/// The decision on one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// Why.
    pub reason: Reason,
    /// The filter runs in simulate mode and lets a packet pass that it would otherwise drop.
    pub simulated: bool,
}

impl Verdict {
    /// What happens to the packet.
    pub const fn action(self) -> Action {
        if self.simulated {
            Action::Pass
        } else {
            self.reason.action()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_unique_and_names_tell_the_action() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            let prefix = match reason.action() {
                Action::Pass => "pass-",
                Action::Drop => "drop-",
            };
            assert!(reason.name().starts_with(prefix), "{reason:?}");
            assert_eq!(Reason::from_number(*reason as u8), Some(*reason));
            for other in &Reason::ALL[index + 1..] {
                assert_ne!(reason.name(), other.name());
            }
        }
        assert_eq!(Reason::from_number(200), None);
    }
}
