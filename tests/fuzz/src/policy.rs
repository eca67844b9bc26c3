//! The rules for descriptors left open, which the agent in a JVM reads.
//!
//! In: the text of a policy file. Out: nothing. Invariant: answering takes no time to speak of,
//! however many stars a pattern has.

// The agent is a library for JVMs and shows nothing to Rust; its parser is compiled in here again.
#[path = "../../../bindings/java/agent/src/policy.rs"]
mod agent;

use crate::Target;

pub(crate) fn targets() -> Vec<Target> {
    vec![Target::new("policy", read, seeds)]
}

fn seeds() -> Vec<Vec<u8>> {
    let text: &[u8] =
        b"# logs\ntype: file\npath: /var/log/**.log\naction: reopen\nwarn: false\n---\n\
        type: pipe\naction: ignore\n---\ntype: filedescriptor\nvalue: 9\naction: error\n";
    vec![text.to_vec()]
}

fn read(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match agent::Policy::parse(text) {
        Ok(policy) => {
            for target in ["/var/log/a/b/c/d/e/f/g/application.log", "pipe:[17]", "socket:[4]"] {
                let _ = policy.allows(9, target);
            }
        }
        Err(error) => assert!(error.to_string().starts_with("line "), "{error}"),
    }
}
