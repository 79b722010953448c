//! Customers: phones that register and call all the time. None of it may fail.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use anyhow::Result;
use xtask::lab::{
    Site, Topology,
    client::{Client, Exchange, Shape},
    sipp::Phone,
};

use super::{Sabotage, Stage};

/// Last parts of the phones' addresses: the first over TCP, the last with IPv6.
pub(super) const HOSTS: [u8; 4] = [11, 12, 13, 14];
const PACE: Duration = Duration::from_secs(2);
/// RFC 3261's 64·T1, after which a phone gives up.
const PATIENCE: Duration = Duration::from_secs(32);

pub(super) fn accounts() -> Vec<Phone> {
    let phone = |(host, number): (u8, u32)| Phone {
        address: if HOSTS.last() == Some(&host) {
            Topology::phone_v6(host)
        } else {
            Topology::phone_v4(host)
        },
        user: number.to_string(),
        password: format!("Xk9-{number}-vT4"),
    };
    HOSTS.into_iter().zip(1001..).map(phone).collect()
}

/// Registers and calls until the end.
pub(super) fn live(stage: &Stage<'_>, phone: &Phone, tcp: bool) -> Result<()> {
    let mut client = None;
    let mut round = 0u32;
    while stage.goes_on() {
        let result = client.take().map_or_else(|| connect(stage, phone, tcp), Ok);
        match result.and_then(|client| attempt(&client, phone).map(|outcomes| (client, outcomes))) {
            Ok((connected, outcomes)) => {
                for (what, exchange) in outcomes {
                    // Only the server says that.
                    let unanswered = exchange.status == Some(408) && what == "INVITE";
                    stage.unanswered.fetch_add(unanswered.into(), Ordering::Relaxed);
                    note(stage, exchange.succeeded() || unanswered, || {
                        let answer = exchange
                            .status
                            .map_or("no answer".to_owned(), |status| status.to_string());
                        format!("{what} of {}: {answer}", phone.user)
                    });
                }
                client = Some(connected);
            }
            Err(error) => note(stage, false, || format!("phone {}: {error:#}", phone.user)),
        }
        round += 1;
        if round == 5 && tcp && stage.sabotage == Some(Sabotage::Customer) {
            stage
                .filter
                .ask(&["ban", &phone.address.to_string(), "-d", "2s"])?;
        }
        stage.rest(PACE);
    }
    Ok(())
}

fn connect(stage: &Stage<'_>, phone: &Phone, tcp: bool) -> Result<Client> {
    let netns = &stage.site.topology.phones;
    let server = Site::server_for(phone.address);
    let mut client = if tcp {
        Client::tcp(netns, SocketAddr::new(phone.address, 0), server, &phone.user)?
    } else {
        Client::new(netns, SocketAddr::new(phone.address, 5060), server, &phone.user)?
    };
    client.patience = PATIENCE;
    Ok(client)
}

fn attempt(client: &Client, phone: &Phone) -> Result<[(&'static str, Exchange); 2]> {
    Ok([
        ("REGISTER", client.register(&phone.password)?),
        ("INVITE", client.call("2000", &phone.password, Shape::default())?),
    ])
}

fn note(stage: &Stage<'_>, good: bool, what: impl FnOnce() -> String) {
    stage.tried.fetch_add(1, Ordering::Relaxed);
    // Whoever was still waiting when everything ended was not refused.
    if !good && stage.goes_on() {
        stage.failed.fetch_add(1, Ordering::Relaxed);
        stage.complain(what());
    }
}
