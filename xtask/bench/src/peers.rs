//! The same traffic, the same set: sip-filter, what else could be used, and the limit.

use anyhow::Result;
use xtask::lab::command;

use super::{
    Results, Session,
    generator::{Shape, Sources},
    kernel::Programs,
    plane::{Filling, Limits, STRANGERS},
    subject::Kind,
    wire::{Effort, compete, set_up},
};

/// Measures the group.
///
/// # Errors
/// If something can't be set up, or frames were lost.
pub(super) fn measure(session: &Session, results: &mut Results) -> Result<()> {
    let mut programs = Programs::load(&session.programs)?;
    let effort = Effort::of(session);
    let register = Shape::request("REGISTER");
    let with_sets = [
        Kind::Bare,
        Kind::Least,
        Kind::SipFilter,
        Kind::NftablesIngress,
        Kind::NftablesRaw,
        Kind::Generic,
    ];
    let sets = [("1 ban", 1), ("16 k bans", 16_384), ("500 k bans", 500_000)];
    // Loading the last takes nftables longer than a quick run may.
    let sets = if session.quick { &sets[..2] } else { &sets[..] };
    for &(case, bans) in sets {
        let filling = Filling {
            bans,
            ..Filling::NOTHING
        };
        let mut kinds = with_sets.to_vec();
        // Not every distribution has it; its table holds 10,000 addresses, each brought by a process of its own.
        if bans == 1 && command::exists("xdp-filter") {
            kinds.push(Kind::XdpFilter);
        }
        let mut subjects = set_up(&kinds, &programs, &filling)?;
        let traffic = register.from(Sources::from(0, bans).random());
        let cases = [(case.to_owned(), 1)];
        compete(
            "peers",
            &mut subjects,
            &mut programs,
            (&traffic, &cases),
            effort,
            results,
        )?;
    }
    let narrow = Filling {
        limits: Limits::Narrow,
        ..Filling::NOTHING
    };
    for (case, sources) in [("flood of 1 source", 1), ("flood of 4 k sources", 4_096)] {
        let kinds = [Kind::SipFilter, Kind::Iptables];
        let mut subjects = set_up(&kinds, &programs, &narrow)?;
        let traffic = register.from(Sources::from(STRANGERS, sources).random());
        let cases = [(case.to_owned(), 1)];
        compete(
            "peers",
            &mut subjects,
            &mut programs,
            (&traffic, &cases),
            effort,
            results,
        )?;
    }
    Ok(())
}
