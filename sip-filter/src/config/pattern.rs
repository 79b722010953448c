//! Names of interfaces with wildcards, as in a shell: `*` is any text, `?` any one character.

/// Whether a name of the configuration stands for any number of interfaces.
#[must_use]
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// Whether an interface is one of those named. The loopback is only when it is named in full: a pattern that happens to
/// match it means the outside.
#[must_use]
pub fn matches(names: &[String], interface: &str) -> bool {
    names.iter().any(|name| {
        if is_pattern(name) {
            interface != "lo" && like(name.as_bytes(), interface.as_bytes())
        } else {
            name == interface
        }
    })
}

/// Linear but for the last `*`: what one matches is only ever made longer.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((before, taken)) = star else {
                    return false;
                };
                star = Some((before, taken + 1));
                at = before + 1;
                seen = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("eth*", "eth0", true),
            ("eth*", "eth", true),
            ("eth*", "veth0", false),
            ("*", "wan", true),
            ("*", "lo", false),
            ("l?", "lo", false),
            ("lo", "lo", true),
            ("eth?", "eth0", true),
            ("eth?", "eth10", false),
            ("en*s*", "enp3s0", true),
            ("en*s*0", "enp3s1", false),
            ("*.100", "eth0.100", true),
            ("a*a*a*a*b", "aaaaaaaaaaaaaac", false),
            ("eth0", "eth0", true),
            ("eth0", "eth00", false),
        ] {
            assert_eq!(matches(&[pattern.to_owned()], name), expected, "{pattern} {name}");
        }
        assert!(!matches(&[], "eth0"));
    }
}
