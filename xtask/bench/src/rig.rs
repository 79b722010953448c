//! A veth pair between two namespaces, with a generator at one end and somebody who receives at the other.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::net::if_::if_nametoindex;
use serde_json::Value;
use xtask::lab::{Netns, command, offload, wait};

use super::{
    generator::Traffic,
    kernel::{Attached, Program, Programs, pin},
};

/// The end that sends, and the one that receives.
const SENDER: &str = "send";
pub(super) const RECEIVER: &str = "receive";

/// The pair. A rig stands for one subject, so that subjects can be measured in turn without touching them.
#[derive(Debug)]
pub(super) struct Rig {
    sender: Netns,
    pub(super) receiver: Netns,
    /// Index of the sender's interface.
    index: u32,
}

/// What a burst did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Burst {
    pub(super) sent: u64,
    pub(super) time: Duration,
}

impl Burst {
    /// Millions of packets a second.
    pub(super) fn rate(&self) -> f64 {
        self.sent as f64 / self.time.as_secs_f64() / 1e6
    }
}

impl Rig {
    /// Builds it, a queue for each CPU.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn new() -> Result<Self> {
        let (sender, receiver) = (Netns::new("send")?, Netns::new("receive")?);
        let queues = ["numrxqueues", "2", "numtxqueues", "2"];
        let link = [&["link", "add", SENDER, "netns", sender.name()][..], &queues].concat();
        let peer = [
            &["type", "veth", "peer", "name", RECEIVER, "netns", receiver.name()][..],
            &queues,
        ]
        .concat();
        command::run("ip", &[link, peer].concat())?;
        for (netns, interface) in [(&sender, SENDER), (&receiver, RECEIVER)] {
            // Nothing else may be on the link, or it would count.
            netns.sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "1")?;
            netns.up(interface)?;
        }
        // To whom the frames are addressed: what is for others the kernel drops before any table of IP sees it.
        receiver.ip(&["link", "set", RECEIVER, "address", "02:00:00:00:00:01"])?;
        // Only now: the setting has no effect on an interface that is down.
        for (netns, interface) in [(&sender, SENDER), (&receiver, RECEIVER)] {
            netns.enter(|| offload::enable_gro(interface))??;
        }
        let index = sender
            .enter(|| if_nametoindex(SENDER))?
            .context("the sender's interface")?;
        Ok(Self {
            sender,
            receiver,
            index,
        })
    }

    /// Attaches a program to the receiving end.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn attach(&self, program: &mut Program, generic: bool) -> Result<Attached> {
        self.receiver.enter(|| {
            let index = if_nametoindex(RECEIVER).context("the receiver's interface")?;
            program.attach(index, generic)
        })?
    }

    /// Sends so many frames from each of the first `cpus` processors, all at once, and waits for them.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn burst(
        &self,
        programs: &mut Programs,
        traffic: &Traffic,
        cpus: usize,
        frames: u32,
    ) -> Result<Burst> {
        let mut plan = traffic.plan;
        plan.interface = self.index.into();
        programs.set_plan(&plan, &traffic.heads)?;
        let time = self.on_cpus(programs, cpus, |generator| generator.send(&traffic.frame, frames))?;
        let sent = programs.state()?.sent;
        ensure!(
            sent == u64::from(frames) * cpus as u64,
            "{sent} frames were sent of {cpus} × {frames}"
        );
        Ok(Burst { sent, time })
    }

    /// Sends from each of the first `cpus` processors until `limit` is over. Plan and heads must have been set.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn flood(
        &self,
        programs: &mut Programs,
        traffic: &Traffic,
        cpus: usize,
        limit: Duration,
    ) -> Result<Burst> {
        let mut plan = traffic.plan;
        plan.interface = self.index.into();
        programs.set_plan(&plan, &traffic.heads)?;
        let time = self.on_cpus(programs, cpus, |generator| {
            let start = Instant::now();
            while start.elapsed() < limit {
                generator.send(&traffic.frame, 20_000)?;
            }
            Ok(())
        })?;
        Ok(Burst {
            sent: programs.state()?.sent,
            time,
        })
    }

    /// Runs `work` on each of the first `cpus` processors at once; returns the time from the first start to the last
    /// end.
    fn on_cpus(
        &self,
        programs: &Programs,
        cpus: usize,
        work: impl Fn(&Program) -> Result<()> + Sync,
    ) -> Result<Duration> {
        let generator = programs.program("vary_then_send")?;
        let start = Barrier::new(cpus);
        let one = |cpu: usize| -> Result<(Instant, Instant)> {
            pin(cpu)?;
            start.wait();
            let begun = Instant::now();
            work(&generator)?;
            Ok((begun, Instant::now()))
        };
        let one = &one;
        let times = self.sender.enter(|| {
            // Threads inherit the namespace of the one that starts them.
            thread::scope(|scope| {
                let threads: Vec<_> = (0..cpus).map(|cpu| scope.spawn(move || one(cpu))).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().map_err(|_| anyhow!("a generator panicked"))?)
                    .collect::<Result<Vec<_>>>()
            })
        })??;
        let first = times.iter().map(|time| time.0).min();
        let last = times.iter().map(|time| time.1).max();
        let (first, last) = first.zip(last).context("no processor")?;
        Ok(last - first)
    }

    /// Packets that arrived at the receiving end, whatever became of them.
    ///
    /// # Errors
    /// If `ip` doesn't tell.
    pub(super) fn arrived(&self) -> Result<u64> {
        let text = self
            .receiver
            .ip(&["-json", "-statistics", "link", "show", "dev", RECEIVER])?;
        let value: Value = serde_json::from_str(&text)?;
        value[0]["stats64"]["rx"]["packets"]
            .as_u64()
            .context("`ip` shows no count of packets")
    }
}

/// Waits until `count` says that all of a burst was delivered; fails if it never was, or if there was more.
///
/// # Errors
/// Delivered isn't sent.
pub(super) fn delivered(sent: u64, mut count: impl FnMut() -> Result<u64>) -> Result<()> {
    let mut seen = 0;
    let all = wait::until("the last frames", Duration::from_secs(1), || {
        seen = count()?;
        Ok(seen >= sent)
    });
    if all.is_err() || seen != sent {
        all.ok();
        anyhow::bail!("{seen} frames were delivered of {sent} sent");
    }
    Ok(())
}
