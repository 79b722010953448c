//! Every committed input of every target, and mutations of them, on the stable compiler: what libFuzzer found once is
//! never found again, and what it would find first is found here.
//!
//! The mutations are the same ones in every run. `PROPTEST_RNG_SEED` takes others, `PROPTEST_CASES` that many of each.

use std::{env, fs, path::Path};

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};
use sip_filter_fuzz::TARGETS;

/// The inputs of a target, with their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| {
            let entry = entry.expect("a corpus that can be listed");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).expect("an input that can be read"))
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{target} has no corpus");
    inputs
}

/// Changes as they happen to bytes on their way.
#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    Cut(prop::sample::Index),
    /// What follows in another input.
    Splice(prop::sample::Index, prop::sample::Index, prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = any::<prop::sample::Index>;
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(&b"\0\xff\x7f\x80\r\n \t\"\\,:;={}[]<>0129-"[..])
    ];
    prop_oneof![
        4 => (place(), byte.clone()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        2 => (place(), 0_u8..8).prop_map(|(at, bit)| Mutation::Flip(at, 1 << bit)),
        2 => (place(), prop::collection::vec(byte, 1..6)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (place(), 1_usize..40).prop_map(|(at, count)| Mutation::Remove(at, count)),
        1 => (place(), 1_usize..80).prop_map(|(at, count)| Mutation::Repeat(at, count)),
        1 => place().prop_map(Mutation::Cut),
        2 => (place(), place(), place()).prop_map(|(at, other, from)| Mutation::Splice(at, other, from)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation, all: &[(String, Vec<u8>)]) {
    let at = |index: &prop::sample::Index| index.index(bytes.len() + 1);
    match mutation {
        Mutation::Set(index, byte) => {
            let at = at(index);
            bytes.iter_mut().skip(at).take(1).for_each(|it| *it = *byte);
        }
        Mutation::Flip(index, bits) => {
            let at = at(index);
            bytes.iter_mut().skip(at).take(1).for_each(|it| *it ^= bits);
        }
        Mutation::Insert(index, new) => {
            let at = at(index);
            bytes.splice(at..at, new.iter().copied());
        }
        Mutation::Remove(index, count) => {
            let at = at(index);
            bytes.drain(at..bytes.len().min(at + count));
        }
        Mutation::Repeat(index, count) => {
            let at = at(index);
            let again = bytes[at..bytes.len().min(at + count)].to_vec();
            bytes.splice(at..at, again);
        }
        Mutation::Cut(index) => bytes.truncate(at(index)),
        Mutation::Splice(index, other, from) => {
            let at = at(index);
            let (_, other) = &all[other.index(all.len())];
            bytes.truncate(at);
            bytes.extend(&other[from.index(other.len() + 1)..]);
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut found: Vec<String> = fs::read_dir(corpora)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let mut expected: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

/// A test that fails by chance says nothing of the change it is run for: without a variable, every run is the same.
fn runner(mutations: u32) -> TestRunner {
    let of_environment = Config::default();
    TestRunner::new(Config {
        cases: match env::var_os("PROPTEST_CASES") {
            Some(_) => of_environment.cases,
            None => mutations,
        },
        rng_seed: match of_environment.rng_seed {
            RngSeed::Random => RngSeed::Fixed(6),
            chosen @ RngSeed::Fixed(_) => chosen,
        },
        failure_persistence: None,
        ..of_environment
    })
}

fn replay(name: &str) {
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target of that name");
    let inputs = corpus(name);
    for (file, input) in &inputs {
        let run = std::panic::catch_unwind(|| (target.run)(input));
        assert!(run.is_ok(), "fuzz/corpus/{name}/{file}");
    }
    let strategy = (
        any::<prop::sample::Index>(),
        prop::collection::vec(mutation(), 1..6),
    );
    let result = runner(target.mutations).run(&strategy, |(input, mutations)| {
        let mut bytes = inputs[input.index(inputs.len())].1.clone();
        for mutation in &mutations {
            mutate(&mut bytes, mutation, &inputs);
        }
        let run = std::panic::catch_unwind(|| (target.run)(&bytes));
        prop_assert!(run.is_ok(), "breaks {name}: b\"{}\"", bytes.escape_ascii());
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

macro_rules! replays {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target));
        })*
    };
}

replays!(packet classify message capture analysis api config import record store);
