//! The customers: phones that register and call while the attacks go on.

use std::time::Duration;

use anyhow::Result;
use xtask::lab::{
    Site, Topology,
    sipp::{Pace, Phone, Sipp},
};

use super::verdict::PhoneRecord;

/// Last parts of the phones' addresses.
pub(crate) const HOSTS: [u8; 5] = [11, 12, 13, 14, 15];
/// Registrations, and as many calls, of each phone.
const PLANNED: u32 = 20;
const EVERY: Duration = Duration::from_secs(2);
/// From the first attempt to the end of the last, if every response comes.
pub(crate) const DURATION: Duration = Duration::from_secs(2 * PLANNED as u64 + 2);
/// What a phone may need beyond that before it counts as lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

/// The accounts, and where their phones are. The last one lives on IPv6.
pub(crate) fn accounts() -> Vec<Phone> {
    HOSTS
        .into_iter()
        .zip(1001..)
        .map(|(host, number)| {
            let last = HOSTS.last() == Some(&host);
            Phone {
                address: if last {
                    Topology::phone_v6(host)
                } else {
                    Topology::phone_v4(host)
                },
                user: number.to_string(),
                // A careless customer's: four digits, which svcrack finds in seconds if nobody stops it.
                password: if number == 1001 {
                    "2500".to_owned()
                } else {
                    format!("Xk9-{number}-vT4")
                },
            }
        })
        .collect()
}

/// One running phone.
#[derive(Debug)]
pub(crate) struct RunningPhone {
    register: Sipp,
    call: Sipp,
    pub(crate) record: PhoneRecord,
}

impl RunningPhone {
    /// Starts the phone's registrations and calls.
    pub(crate) fn start(site: &Site, phone: &Phone) -> Result<Self> {
        let (netns, user) = (&site.topology.phones, &phone.user);
        let server = Site::server_for(phone.address);
        let pace = Pace {
            rate: 1,
            every: EVERY,
            count: PLANNED,
            limit: DURATION + PATIENCE,
        };
        let name = |what: &str| format!("{what}-{user}");
        let register = Sipp::register(netns, &site.dir, &name("register"), phone, 5060, server, pace)?;
        let call = Sipp::call(netns, &site.dir, &name("call"), phone, 5062, server, pace)?;
        let record = PhoneRecord {
            user: user.clone(),
            address: phone.address,
            planned: PLANNED.into(),
            registrations: register.stats()?,
            calls: call.stats()?,
            banned: None,
        };
        Ok(Self {
            register,
            call,
            record,
        })
    }

    /// Whether it has made all its registrations and calls, or given up.
    pub(crate) fn finished(&mut self) -> Result<bool> {
        Ok(self.register.process.status()?.is_some() && self.call.process.status()?.is_some())
    }

    /// Notes what it achieved so far.
    pub(crate) fn tick(&mut self) -> Result<()> {
        self.record.registrations = self.register.stats()?;
        self.record.calls = self.call.stats()?;
        Ok(())
    }
}
