extern crate std;

use std::{format, string::String, string::ToString as _, vec, vec::Vec};

use proptest::prelude::*;

use super::*;

fn items(value: &str) -> Vec<&str> {
    Items::new(value.as_bytes())
        .map(|item| core::str::from_utf8(item).unwrap())
        .collect()
}

fn params(text: &str, separator: u8) -> Vec<(&str, &str)> {
    let text_of = |bytes| core::str::from_utf8(bytes).unwrap();
    Params::new(text.as_bytes(), separator)
        .map(|param| (text_of(param.name), text_of(param.value)))
        .collect()
}

#[test]
fn numbers() {
    for (text, value) in [
        ("0", Some(0)),
        ("0042", Some(42)),
        (" 7\r\n ", Some(7)),
        ("4294967295", Some(u32::MAX)),
        ("4294967296", Some(u32::MAX)),
        ("99999999999999999999999999", Some(u32::MAX)),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1a", None),
        ("1 2", None),
    ] {
        assert_eq!(number(text.as_bytes()), value, "{text}");
    }
}

#[test]
fn lists_end_at_commas_that_stand_alone() {
    assert_eq!(items("a, b ,\r\n c"), ["a", "b", "c"]);
    assert_eq!(items(",, a,,"), ["a"]);
    assert_eq!(items("\"a, b\" <c>, d"), ["\"a, b\" <c>", "d"]);
    assert_eq!(items("\"a\\\", b\", c"), ["\"a\\\", b\"", "c"]);
    assert_eq!(items("\"a\\\\\", b"), ["\"a\\\\\"", "b"]);
    assert_eq!(items("<a, b>, c"), ["<a, b>", "c"]);
    // A quote between angle brackets quotes nothing, nor do brackets between quotes enclose.
    assert_eq!(items("<a\">, b"), ["<a\">", "b"]);
    assert_eq!(items("\"<\", b"), ["\"<\"", "b"]);
    // What is never closed goes on to the end.
    assert_eq!(items("\"a, b"), ["\"a, b"]);
    assert_eq!(items("<a, b"), ["<a, b"]);
    assert_eq!(items(""), [""; 0]);
}

#[test]
fn parameters() {
    assert_eq!(
        params(";a;b=c ; d = \"e;f\\\"\" x;g=;h", b';'),
        [("a", ""), ("b", "c"), ("d", "e;f\\\""), ("g", ""), ("h", "")]
    );
    assert_eq!(params("a=\"b,c\",d=e=f", b','), [("a", "b,c"), ("d", "e=f")]);
    // A quote in the middle of a value opens nothing, so it cannot hide what follows from us.
    assert_eq!(
        params("x=a\"b, user=1, y=\"c\"", b','),
        [("x", "a\"b"), ("user", "1"), ("y", "c")]
    );
    assert_eq!(params("a=<, b=c", b','), [("a", "<"), ("b", "c")]);
    assert_eq!(params("a=b; c=\"d", b';'), [("a", "b")]);
    assert_eq!(params(";;=x;;a", b';'), [("a", "")]);
    assert_eq!(Params::new(b"A=1;a=2", b';').value_of("a"), Some(&b"1"[..]));
}

/// Text that means nothing in a list or a parameter.
fn plain() -> impl Strategy<Value = String> {
    "[a-z0-9.@ ]{0,6}[a-z0-9]"
}

fn white() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", " ", "\t", "\r\n ", "  \n\t"])
}

/// A value that may hold anything if it is quoted.
fn quoted() -> impl Strategy<Value = String> {
    "[a-z,;<>=: ]{0,8}(\\\\\"|\\\\\\\\)?[a-z,;]{0,3}"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 1024 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lists_come_apart_as_they_were_put_together(
        parts in prop::collection::vec((quoted(), plain(), white(), white()), 0..6),
    ) {
        let whole: Vec<String> = parts
            .iter()
            .map(|(name, uri, _, _)| format!("\"{name}\" <{uri},{uri}>;{}", uri.trim()))
            .collect();
        let text: Vec<String> = parts
            .iter()
            .zip(&whole)
            .map(|((_, _, before, after), part)| format!("{before}{part}{after}"))
            .collect();
        let text = text.join(",");
        prop_assert_eq!(items(&text), whole);
    }

    #[test]
    fn parameters_come_apart_as_they_were_put_together(
        parts in prop::collection::vec((("[a-z]{1,6}", quoted(), plain()), (any::<bool>(), white(), white())), 0..6),
        separator in prop::sample::select(vec![b';', b',']),
    ) {
        let mut text = String::new();
        let mut expected = Vec::new();
        for ((name, inner, bare), (quote, before, after)) in &parts {
            let value = if *quote { inner.clone() } else { bare.trim().to_string() };
            let shown = if *quote { format!("\"{value}\"") } else { value.clone() };
            text.push_str(&format!("{before}{name}{after}={before}{shown}{after}{}", char::from(separator)));
            expected.push((name.clone(), value));
        }
        let found: Vec<(String, String)> = params(&text, separator)
            .into_iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        prop_assert_eq!(found, expected);
    }
}
