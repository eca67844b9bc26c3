//! Files of resource policies: whoever starts a program has written them, and not always with care.
//!
//! In: the text of a file. Out: nothing. Invariant: it is understood, or refused with its lines; and a
//! pattern that was understood is compared in no time, whatever it is.

use crate::{Target, fixtures};
use tubthumping_app::descriptor::{Descriptor, Socket};
use tubthumping_app::policies::Policies;

pub(crate) fn targets() -> Vec<Target> {
    vec![Target::new("policies", read, seeds)]
}

/// The rules of each case that both parsers have, and a file of many kinds.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for bytes in fixtures(&["policies/malformed.txt", "policies/matching.txt"]) {
        let text = String::from_utf8(bytes).unwrap();
        for case in text.split("=== ").skip(1) {
            let (_, text) = case.split_once('\n').unwrap();
            let rules = text.split(">>>").next().unwrap_or_default();
            seeds.push(rules.as_bytes().to_vec());
        }
    }
    seeds
}

fn read(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // No name is looked up: what a host is called is not ours to parse.
    match Policies::parse("FILE", &text, &|host| host.parse().ok()) {
        Ok(policies) => {
            for descriptor in descriptors() {
                let found = policies.of(&descriptor);
                assert!(found.is_none() || !policies.is_empty());
            }
        }
        Err(problem) => {
            assert!(problem.starts_with("Invalid rule in policies file FILE on lines "))
        }
    }
}

fn descriptors() -> impl Iterator<Item = Descriptor> {
    let long = format!("/{}", "a".repeat(300));
    let kinds = [("regular", long.as_str()), ("fifo", "pipe:[17]"), ("socket", "socket:[18]")];
    let made = kinds.map(|(kind, path)| Descriptor {
        number: 9,
        kind,
        path: path.into(),
        identity: (0, 0),
        socket: Socket {
            family: "unix".into(),
            local: long.clone(),
            remote: "@name".into(),
            ..Socket::default()
        },
    });
    made.into_iter()
}
