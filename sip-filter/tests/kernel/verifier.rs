//! How much work the kernel's verifier has with the programs, against the committed budget; and the largest tables.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use serde::Deserialize;
use sip_filter::{
    bans::{Scope, Target},
    dataplane::{KernelBan, LoadOptions, LoadedProgram, TableSizes},
};

use crate::{
    frames::{Frame, request},
    kernel_or_skip,
    pair::{self, config},
    syscall::{EVERYTHING, Load, STATISTICS, with_logs},
};

const BUDGET: &str = include_str!("../../../sip-filter-ebpf/verifier-budget.toml");
/// Where a budget is measured, and logs are kept; else a directory of cargo's.
const DIRECTORY: &str = "SIP_FILTER_VERIFIER_DIR";
/// Set where the budget is to be renewed, so that nothing is judged.
const RENEW: &str = "SIP_FILTER_RENEW_BUDGET";
/// In percent; the same compiler makes the same program, another one does not.
const TOLERANCE: u32 = 10;

/// What the verifier had to do for a program or one of its functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
struct Work {
    /// Instructions it looked at, on all paths.
    instructions: u32,
    /// Bytes.
    stack: u32,
}

type Works = BTreeMap<String, Work>;

fn options(sizes: TableSizes, log: bool) -> LoadOptions {
    LoadOptions {
        sizes,
        config: config(),
        udp_ports: vec![5060],
        tcp_ports: vec![5060, 5061],
        log,
        test_clock: false,
    }
}

#[test]
fn the_verifier_has_no_more_work_than_its_budget() {
    if !kernel_or_skip("the_verifier_has_no_more_work_than_its_budget") {
        return;
    }
    let works = measure();
    let kernel = kernel();
    let measured = describe(&kernel, &works);
    println!("{measured}");
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        fs::write(PathBuf::from(directory).join("verifier.toml"), measured).unwrap();
    }
    if std::env::var_os(RENEW).is_some_and(|value| value == "1") {
        return;
    }
    let budget: BTreeMap<String, Works> = toml::from_str(BUDGET).unwrap();
    let over = over(&allowed(&budget, &kernel), &works);
    if !over.is_empty() {
        let logs = [load(false, |_| EVERYTHING), load(true, |_| EVERYTHING)];
        panic!(
            "on kernel {kernel} the verifier has more work than its budget allows:\n{}\nfull logs: {}\nIf that is as it \
             must be: cargo xtask kernels --renew-budget",
            over.join("\n"),
            keep(&logs.concat())
        );
    }
}

/// Loads ingress and egress, with the program's own log or without, and returns what the verifier wrote; what it refuses
/// is a failed test.
fn load(log: bool, level: fn(&str) -> u32) -> Vec<Load> {
    let (loaded, mut loads) = with_logs(level, || {
        LoadedProgram::load("test", &options(pair::sizes(), log))
    });
    if log {
        for load in &mut loads {
            load.program.push_str(WITH_LOG);
        }
    }
    if let Err(error) = loaded {
        panic!("{error}; full logs: {}", keep(&loads));
    }
    assert_eq!(loads.len(), 2, "ingress and egress");
    loads
}

const WITH_LOG: &str = " with its log";

/// Both programs, as they usually are and with their own log, and each global function. These the verifier looks at by
/// themselves, so it has the same work with them in either program; only the smaller one's log is read for them.
fn measure() -> Works {
    let of_egress = |program: &str| {
        if program == "egress" {
            EVERYTHING
        } else {
            STATISTICS
        }
    };
    let loads = [load(false, of_egress), load(true, |_| STATISTICS)].concat();
    let statistics: Vec<Statistics> = loads.iter().map(|load| statistics(&load.log)).collect();
    let egress = &loads[1];
    let (functions, counted) = functions(&egress.log);
    let adds_up = counted == statistics[1].instructions;
    if !adds_up {
        println!(
            "# this kernel's log reads differently: {counted} instructions in it, {} processed; none are stated of \
             single functions; {}",
            statistics[1].instructions,
            keep(&loads[1..2])
        );
    }
    let mut works = Works::new();
    for (load, of_program) in loads.iter().zip(&statistics) {
        let stacks = &of_program.stacks;
        assert_eq!(
            stacks[1..],
            statistics[1].stacks[1..],
            "{}: other functions than egress",
            load.program
        );
        // What is no global function is looked at with its callers, and its stack lies upon theirs.
        let own = stacks
            .iter()
            .enumerate()
            .filter(|(function, _)| !functions.contains_key(function));
        let work = Work {
            instructions: of_program.instructions,
            stack: own.map(|(_, stack)| stack).sum(),
        };
        works.insert(load.program.clone(), work);
    }
    for (function, (name, instructions)) in functions.into_iter().filter(|_| adds_up) {
        let stack = statistics[1].stacks[function];
        works.insert(name, Work { instructions, stack });
    }
    works
}

/// Writes the full logs, and says where.
fn keep(loads: &[Load]) -> String {
    let directory = std::env::var_os(DIRECTORY).unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let paths = loads.iter().map(|Load { program, log }| {
        let name = format!("verifier-{}.log", program.replace(' ', "-"));
        let path = PathBuf::from(&directory).join(name);
        fs::write(&path, log).unwrap();
        path.display().to_string()
    });
    paths.collect::<Vec<_>>().join(", ")
}

/// Version of the running kernel, as far as the budget tells kernels apart.
fn kernel() -> String {
    let name = nix::sys::utsname::uname().unwrap();
    let release = name.release().to_string_lossy().into_owned();
    let numbers: Vec<&str> = release.split(['.', '-', '+']).take(2).collect();
    numbers.join(".")
}

/// What this kernel may take; one that the budget does not know, what any of those it knows may.
fn allowed(budget: &BTreeMap<String, Works>, kernel: &str) -> Works {
    if let Some(works) = budget.get(kernel) {
        return works.clone();
    }
    let mut most = Works::new();
    for (name, work) in budget.values().flatten() {
        let most = most.entry(name.clone()).or_default();
        most.instructions = most.instructions.max(work.instructions);
        most.stack = most.stack.max(work.stack);
    }
    most
}

/// What is over the budget, or not in it, a line for each.
fn over(budget: &Works, measured: &Works) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, work) in measured {
        let Some(budget) = budget.get(name) else {
            lines.push(format!("{name}: not in the budget"));
            continue;
        };
        for (what, allowed, found) in [
            ("instructions", budget.instructions, work.instructions),
            ("bytes of stack", budget.stack, work.stack),
        ] {
            if u64::from(found) * 100 > u64::from(allowed) * u64::from(100 + TOLERANCE) {
                lines.push(format!(
                    "{name}: {found} {what}, the budget is {allowed} and {TOLERANCE} % more"
                ));
            }
        }
    }
    lines
}

fn describe(kernel: &str, works: &Works) -> String {
    let mut text = format!("[\"{kernel}\"]\n");
    for (name, Work { instructions, stack }) in works {
        writeln!(
            text,
            "\"{name}\" = {{ instructions = {instructions}, stack = {stack} }}"
        )
        .unwrap();
    }
    text
}

/// The sums at the end of a log.
#[derive(Debug, PartialEq)]
struct Statistics {
    instructions: u32,
    /// Bytes, for each function of the program; the first is its entry.
    stacks: Vec<u32>,
}

fn statistics(log: &str) -> Statistics {
    let instructions = after(log, "processed ")
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok());
    let stacks = after(log, "stack depth ").lines().next().unwrap_or_default();
    // Newer kernels add the most that any path takes.
    let stacks = stacks.split(' ').next().unwrap_or_default().split('+');
    Statistics {
        instructions: instructions.expect("a number of instructions"),
        stacks: stacks.map(|bytes| bytes.parse().unwrap()).collect(),
    }
}

fn after<'a>(log: &'a str, key: &str) -> &'a str {
    log.rsplit_once(key)
        .map_or_else(|| panic!("no `{key}` in the log"), |(_, rest)| rest)
}

/// Name and instructions of each global function, by its number in the program; and all instructions in the log, which
/// are as many as the verifier says at its end if the log reads as we know it.
fn functions(log: &str) -> (BTreeMap<usize, (String, u32)>, u32) {
    let mut functions = BTreeMap::new();
    let (mut current, mut steps) = (None, 0);
    // Linux 7 first writes down, in the same way, what it learns without walking. A walk begins with what is known at its
    // first instruction.
    let walked = log
        .lines()
        .skip_while(|line| validating(line).is_none() && !line.starts_with("0: R"));
    for line in walked {
        if let Some((name, number)) = validating(line) {
            functions.insert(number, (name.to_owned(), 0));
            current = Some(number);
        } else if line.starts_with("Func#") && line.contains(" is safe for ") {
            current = None;
        } else if is_step(line) {
            steps += 1;
            if let Some((_, instructions)) = current.and_then(|number| functions.get_mut(&number)) {
                *instructions += 1;
            }
        }
    }
    (functions, steps)
}

/// Name and number of the global function that the verifier turns to.
fn validating(line: &str) -> Option<(&str, usize)> {
    let (name, number) = line.strip_prefix("Validating ")?.split_once("() func#")?;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((name, digits.parse().ok()?))
}

/// Whether the line is about an instruction that counts: one looked at, or one where a path ends because it is known to
/// be safe from there on.
fn is_step(line: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((number, rest)) = line.split_once(": ") else {
        return false;
    };
    if is_number(number) {
        return rest.starts_with('(') || rest == "safe";
    }
    number.starts_with("from ") && rest == "safe"
}

/// As large as the configuration allows (`TABLE_MAX`, `TRUST_MAX`), or as fits into this memory.
fn largest(memory: u64) -> TableSizes {
    let bytes = |entries: u32, slots: u64| {
        let buckets = (u64::from(entries) * 100)
            .div_ceil(slots * 85)
            .next_power_of_two();
        buckets * 64
    };
    let mut entries = 1_u32 << 26;
    loop {
        let trust = entries.min(10_000_000);
        let slots = [
            (entries, 7),
            (entries, 3),
            (entries, 2),
            (entries, 3),
            (entries, 2),
            (entries, 4),
        ];
        let of_trust = [(trust, 7), (trust, 3), (trust, 3)];
        let sum: u64 = slots
            .iter()
            .chain(&of_trust)
            .map(|(entries, slots)| bytes(*entries, *slots))
            .sum();
        if sum <= memory {
            return TableSizes {
                ban4: entries,
                ban6: entries,
                ban6_hosts: entries,
                networks: entries,
                sources: entries,
                trust,
                endpoints: trust,
            };
        }
        entries /= 2;
    }
}

/// Half the memory that is free, and not more than a gigabyte: others use this machine, too.
fn spare_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .unwrap();
    let kibibytes: u64 = available.trim().trim_end_matches(" kB").parse().unwrap();
    (kibibytes * 1024 / 2).min(1 << 30)
}

#[test]
fn the_largest_tables_load_and_decide() {
    if !kernel_or_skip("the_largest_tables_load_and_decide") {
        return;
    }
    let sizes = largest(spare_memory());
    assert!(sizes.ban4 >= 1 << 20, "too little memory for a test: {sizes:?}");
    println!("{sizes:?}");
    let (mut program, mut image) = LoadedProgram::load("test", &options(sizes, true)).unwrap();
    let payload = request("OPTIONS");
    let run = |program: &mut LoadedProgram, source: IpAddr| {
        program.test_run(&Frame::udp(source, &payload).build()).unwrap()
    };
    // Spread over the tables from end to end.
    let sources: Vec<IpAddr> = (0..500_u32)
        .flat_map(|n| {
            let spread = n.wrapping_mul(0x9e37_79b1);
            let host = Ipv4Addr::from(0x0b00_0000 | spread >> 8);
            let prefix = Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(spread) << 64 | 7);
            [IpAddr::V4(host), IpAddr::V6(prefix)]
        })
        .collect();
    let ban = KernelBan {
        scope: Scope::Sip,
        expires: None,
    };
    let passed = |program: &mut LoadedProgram| {
        sources
            .iter()
            .filter(|source| run(program, **source) == XDP_PASS)
            .count()
    };
    assert_eq!(passed(&mut program), sources.len(), "before the bans");
    for source in &sources {
        image.put(target(*source), ban).unwrap();
    }
    assert_eq!(passed(&mut program), 0, "banned");
    for source in &sources {
        image.remove(target(*source)).unwrap();
    }
    assert_eq!(passed(&mut program), sources.len(), "after the bans");
}

const XDP_PASS: u32 = 2;

/// An address, or every other one its network.
fn target(source: IpAddr) -> Target {
    match source {
        IpAddr::V4(_) => source.to_string().parse().unwrap(),
        IpAddr::V6(v6) if v6.segments()[3] % 2 == 0 => source.to_string().parse().unwrap(),
        IpAddr::V6(v6) => Target::network(ipnet::IpNet::new(v6.into(), 64).unwrap().trunc()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
func#0 @0
func#1 @7
Validating classify_other() func#1...
7: R1=scalar() R10=fp0
; let x = 1;
7: (b7) r0 = 1                        ; R0_w=1
8: (15) if r1 == 0x0 goto pc+1
9: (95) exit

from 8 to 10: R0_w=1 R1=0 R10=fp0
10: (95) exit
Func#1 ('classify_other') is safe for any args that match its prototype
0: R1=ctx() R10=fp0
0: (b7) r1 = 0
1: (85) call pc+5
2: (95) exit
from 1 to 2: safe
verification time 123 usec
stack depth 168+16+8
processed 8 insns (limit 1000000) max_states_per_insn 1 total_states 2 peak_states 2 mark_read 1
";

    #[test]
    fn a_log_tells_the_work_of_the_program_and_of_each_global_function() {
        let expected = Statistics {
            instructions: 8,
            stacks: vec![168, 16, 8],
        };
        assert_eq!(statistics(LOG), expected);
        let (functions, counted) = functions(LOG);
        assert_eq!(functions, [(1, ("classify_other".to_owned(), 4))].into());
        assert_eq!(counted, expected.instructions);
    }

    #[test]
    fn what_the_verifier_writes_before_it_walks_is_not_counted() {
        let before = "func#0 @0\nsubprog#0: analyzing (depth 0)...\n  3: (bf) r2 = r10\tr2: _ -> fp0+0\n\
                      100: (07) r2 += -40\tr2: fp0+0 -> fp0-40\nlive regs before insn:\n";
        assert_eq!(functions(&format!("{before}{LOG}")), functions(LOG));
    }

    #[test]
    fn more_than_a_tenth_over_the_budget_is_too_much() {
        let of = |instructions, stack| Works::from([("ingress".to_owned(), Work { instructions, stack })]);
        let budget = of(1_000, 100);
        assert!(over(&budget, &of(1_100, 110)).is_empty());
        assert!(over(&budget, &of(10, 10)).is_empty());
        assert_eq!(over(&budget, &of(1_101, 100)).len(), 1);
        assert_eq!(over(&budget, &of(1_101, 111)).len(), 2);
        assert_eq!(over(&Works::new(), &of(1, 1)), ["ingress: not in the budget"]);
    }

    #[test]
    fn a_kernel_that_the_budget_does_not_know_may_take_what_any_may() {
        let budget: BTreeMap<String, Works> = toml::from_str(
            "[\"6.1\"]\ningress = { instructions = 5, stack = 9 }\n[\"6.12\"]\ningress = { instructions = 7, stack = 8 }\n",
        )
        .unwrap();
        let of = |instructions, stack| Works::from([("ingress".to_owned(), Work { instructions, stack })]);
        assert_eq!(allowed(&budget, "6.1"), of(5, 9));
        assert_eq!(allowed(&budget, "6.18"), of(7, 9));
    }
}
