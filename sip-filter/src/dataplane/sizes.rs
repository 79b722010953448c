//! Sizes of the tables.

/// Entries each table must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    /// Banned IPv4 addresses.
    pub ban4: u32,
    /// Banned IPv6 prefixes of the counted length.
    pub ban6: u32,
    /// Banned single IPv6 addresses.
    pub ban6_hosts: u32,
    /// Banned and allowed networks; the kernel has room for so many of each family.
    pub networks: u32,
    /// Sources, by traffic class, whose limits are remembered.
    pub sources: u32,
    /// Trusted sources of each family.
    pub trust: u32,
    /// Endpoints of trusted sources, both families.
    pub endpoints: u32,
}

impl TableSizes {
    pub(crate) fn ban4_buckets(&self) -> u32 {
        buckets(self.ban4, 7)
    }

    pub(crate) fn ban6_buckets(&self) -> u32 {
        buckets(self.ban6, 3)
    }

    pub(crate) fn ban6_host_buckets(&self) -> u32 {
        buckets(self.ban6_hosts, 2)
    }

    pub(crate) fn trust4_buckets(&self) -> u32 {
        buckets(self.trust, 7)
    }

    pub(crate) fn trust6_buckets(&self) -> u32 {
        buckets(self.trust, 3)
    }

    pub(crate) fn endpoint_buckets(&self) -> u32 {
        buckets(self.endpoints, 3)
    }

    pub(crate) fn net4_buckets(&self) -> u32 {
        buckets(self.networks, 3)
    }

    pub(crate) fn net6_buckets(&self) -> u32 {
        buckets(self.networks, 2)
    }

    pub(crate) fn source_buckets(&self) -> u32 {
        self.sources.div_ceil(4).next_power_of_two().max(64)
    }
}

/// Buckets in which `entries` leave the table at most 85 % full, the load it was tested to.
fn buckets(entries: u32, slots: u64) -> u32 {
    let needed = (u64::from(entries) * 100)
        .div_ceil(slots * 85)
        .next_power_of_two();
    // 64 lines are a page.
    u32::try_from(needed.clamp(64, 1 << 28)).unwrap_or(1 << 28)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_hold_what_was_asked_for() {
        for entries in [0, 1, 380, 1_000_000, 5_000_000] {
            let buckets = buckets(entries, 7);
            assert!(buckets.is_power_of_two());
            assert!(u64::from(buckets) * 7 * 85 / 100 >= u64::from(entries));
        }
    }
}
