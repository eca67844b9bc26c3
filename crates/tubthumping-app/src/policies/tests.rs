//! Both parsers of policy files are held to the same cases (`tests/fixtures/policies`): this one here,
//! that of Java by `tests/e2e/java/Policies.java`.

use super::*;
use crate::descriptor::Socket;

const MALFORMED: &str = include_str!("../../../../tests/fixtures/policies/malformed.txt");
const MATCHING: &str = include_str!("../../../../tests/fixtures/policies/matching.txt");

fn parse(text: &str) -> Result<Policies, String> {
    Policies::parse("FILE", text, &|host| host.parse().ok())
}

fn cases(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("=== ").skip(1).map(|case| case.split_once('\n').unwrap())
}

#[test]
fn what_is_not_understood_is_named_with_its_lines() {
    for (expected, text) in cases(MALFORMED) {
        let found = parse(text).unwrap_err();
        let on = "Invalid rule in policies file FILE on lines ";
        assert!(found.starts_with(&format!("{on}{expected}")), "{found} instead of {expected}");
    }
}

#[test]
fn the_first_rule_that_fits_decides() {
    for (name, text) in cases(MATCHING) {
        let (rules, descriptors) = text.split_once(">>>\n").unwrap();
        let policies = parse(rules).unwrap();
        for line in descriptors.lines() {
            let (given, expected) = line.split_once("=>").unwrap();
            let found = policies.of(&descriptor(given)).map_or("none".to_owned(), |rule| {
                let quiet = if rule.warns { "" } else { " quiet" };
                format!("{:?}{quiet}", rule.action).to_lowercase()
            });
            assert_eq!(found, expected.trim(), "{name}: {line}");
        }
    }
}

fn descriptor(line: &str) -> Descriptor {
    let fields: Vec<&str> = line.split('|').map(str::trim).collect();
    let field = |at: usize| fields.get(at).copied().unwrap_or_default().to_owned();
    let kinds = ["regular", "directory", "character", "fifo", "socket", "unknown"];
    let socket = Socket {
        family: field(3),
        local: field(4),
        local_port: field(5),
        remote: field(6),
        remote_port: field(7),
        is_listening: field(8) == "listening",
        is_stream: true,
    };
    Descriptor {
        number: field(0).parse().unwrap(),
        kind: kinds.into_iter().find(|kind| *kind == field(1)).unwrap(),
        path: field(2).into(),
        identity: (0, 0),
        socket,
    }
}

#[test]
fn lines_end_in_every_way_that_java_knows() {
    let ends: Vec<&str> = lines("a\r\nb\rc\n\nd\u{85}e\u{2028}f\u{b}").collect();
    assert_eq!(ends, ["a", "b", "c", "", "d", "e", "f", ""]);
    assert_eq!(lines("").collect::<Vec<_>>(), [""]);
}

#[test]
fn hosts_have_names_as_well() {
    let rules = "type: socket\nremoteAddress: localhost\naction: close\n";
    let policies = Policies::parse("FILE", rules, &resolve).unwrap();
    let local = descriptor("9 | socket | socket:[1] | inet | 127.0.0.1 | 1 | 127.0.0.1 | 2 |");
    assert!(policies.of(&local).is_some());
    assert_eq!(resolve("[::1]"), "::1".parse().ok());
}

#[test]
fn no_file_and_no_regular_file_are_told_apart() {
    let missing = Policies::read(Path::new("/nonexistent/policy")).unwrap_err();
    assert_eq!(missing, "File /nonexistent/policy used in variable TUB_POLICY does not exist");
    let directory = Policies::read(Path::new("/")).unwrap_err();
    assert!(directory.ends_with("is not a regular file"), "{directory}");
}
