//! Rules for descriptors that the application leaves open: the file that `TUB_POLICY` or
//! `-Djdk.crac.resource-policies` names in CRaC.
//!
//! In: the text of the file, and descriptors. Out: those that the engine may restore.
//! Invariant: what is not understood is refused with its line, never skipped: a rule that did
//! nothing would be found out in production.
//! Not here: restoring them (the engine).
//!
//! Blocks of `key: value`, parted by lines of `---`; `#` starts a comment. `type` is `file`, `pipe`
//! or `filedescriptor`; `action` is `error`, `ignore` or `reopen`, of which the last two mean the
//! same here, since the engine opens files again by itself. A file may have a `path`, in which
//! `*` stands for anything but `/`, `**` for anything, and `?` for one character; a
//! `filedescriptor` has a `value`. The first rule that fits decides.

use std::fmt;

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    /// Files whose path fits; all of them without a pattern.
    File(Option<String>),
    /// Anonymous pipes.
    Pipe,
    /// One number.
    Descriptor(i32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    subject: Subject,
    restore: bool,
}

/// All rules, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
}

/// What cannot be understood, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyError {
    line: usize,
    problem: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl Policy {
    /// Reads the text of a policy.
    pub(crate) fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        let mut block = Block::default();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let line = line.trim();
            if line == "---" {
                policy.rules.extend(std::mem::take(&mut block).finish(number)?);
            } else if !line.is_empty() && !line.starts_with('#') {
                block.add(number, line)?;
            }
        }
        policy.rules.extend(block.finish(text.lines().count())?);
        Ok(policy)
    }

    /// Whether the engine may restore a descriptor that the application has left open.
    pub(crate) fn allows(&self, number: i32, target: &str) -> bool {
        let fits = |rule: &&Rule| match &rule.subject {
            Subject::File(None) => target.starts_with('/'),
            Subject::File(Some(pattern)) => matches(pattern.as_bytes(), target.as_bytes()),
            Subject::Pipe => target.starts_with("pipe:["),
            Subject::Descriptor(wanted) => *wanted == number,
        };
        self.rules.iter().find(fits).is_some_and(|rule| rule.restore)
    }
}

#[derive(Default)]
struct Block {
    kind: Option<String>,
    restore: Option<bool>,
    path: Option<String>,
    value: Option<i32>,
}

impl Block {
    fn add(&mut self, line: usize, text: &str) -> Result<(), PolicyError> {
        let error = |problem: String| PolicyError { line, problem };
        let (key, value) = text
            .split_once(": ")
            .ok_or_else(|| error(format!("\"{text}\" is no \"key: value\"")))?;
        let value = value.trim();
        match key.to_ascii_lowercase().as_str() {
            "type" => self.kind = Some(value.to_ascii_lowercase()),
            "action" => {
                self.restore = Some(match value.to_ascii_lowercase().as_str() {
                    "error" => false,
                    "ignore" | "reopen" => true,
                    _ => return Err(error(format!("action \"{value}\" is not supported"))),
                });
            }
            "path" => self.path = Some(value.to_owned()),
            "value" => {
                let number = value.parse();
                let number = number.map_err(|_| error(format!("\"{value}\" is no number")))?;
                self.value = Some(number);
            }
            // Whether a CRaC JDK warns; there is nothing to warn of here.
            "warn" => {}
            _ => return Err(error(format!("key \"{key}\" is not supported"))),
        }
        Ok(())
    }

    /// The rule of a block that ends at `line`; none of an empty one.
    fn finish(self, line: usize) -> Result<Option<Rule>, PolicyError> {
        let error = |problem: String| PolicyError { line, problem };
        let Some(kind) = self.kind else {
            if self.restore.is_some() || self.path.is_some() || self.value.is_some() {
                return Err(error("the rule above has no type".into()));
            }
            return Ok(None);
        };
        let subject = match (kind.as_str(), self.path, self.value) {
            ("file", path, None) => Subject::File(path),
            ("pipe", None, None) => Subject::Pipe,
            ("filedescriptor", None, Some(number)) => Subject::Descriptor(number),
            ("file" | "pipe" | "filedescriptor", ..) => {
                return Err(error(format!("a rule of type \"{kind}\" cannot look like this")));
            }
            _ => return Err(error(format!("type \"{kind}\" is not supported"))),
        };
        let restore = self.restore.ok_or_else(|| error("the rule above has no action".into()))?;
        Ok(Some(Rule { subject, restore }))
    }
}

/// Whether a path fits a pattern: one pass over the pattern, keeping every place of the path that
/// what came before can end at. Trying the stars one by one would take for ever with many of them.
fn matches(mut pattern: &[u8], path: &[u8]) -> bool {
    let mut ends = vec![false; path.len() + 1];
    ends[0] = true;
    while let Some((&byte, rest)) = pattern.split_first() {
        if byte == b'*' {
            let anything = rest.first() == Some(&b'*');
            pattern = &rest[usize::from(anything)..];
            for at in 0..path.len() {
                ends[at + 1] |= ends[at] && (anything || path[at] != b'/');
            }
        } else {
            pattern = rest;
            let fits = |found: u8| found == byte || byte == b'?' && found != b'/';
            for at in (0..path.len()).rev() {
                ends[at + 1] = ends[at] && fits(path[at]);
            }
            ends[0] = false;
        }
    }
    ends[path.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = Policy::parse(
            "# logs\ntype: file\npath: /var/log/secret.log\naction: error\n---\n\
             Type: FILE\npath: /var/log/**.log\naction: reopen\nwarn: false\n---\n---\n\
             type: pipe\naction: ignore\n---\ntype: filedescriptor\nvalue: 9\naction: ignore\n",
        )
        .unwrap();
        assert!(!policy.allows(5, "/var/log/secret.log"));
        assert!(policy.allows(5, "/var/log/app/a.log"));
        assert!(!policy.allows(5, "/etc/passwd"));
        assert!(policy.allows(5, "pipe:[17]"));
        assert!(policy.allows(9, "socket:[4]"));
        assert!(!policy.allows(8, "socket:[4]"));
    }

    #[test]
    fn a_star_stays_within_its_directory() {
        for (pattern, path, fits) in [
            ("/a/*.log", "/a/b.log", true),
            ("/a/*.log", "/a/b/c.log", false),
            ("/a/**", "/a/b/c.log", true),
            ("/a/?", "/a/b", true),
            ("/a/?", "/a//", false),
            ("/**/**/*", "/a/b/c", true),
            ("*a*b", "aab", true),
            ("", "", true),
            ("**", "", true),
            ("/a", "/ab", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), path.as_bytes()), fits, "{pattern} {path}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "**a".repeat(200);
        assert!(!matches(pattern.as_bytes(), &[b'a'; 199]));
        assert!(matches(pattern.as_bytes(), &[b'a'; 200]));
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        for (text, message) in [
            ("type: file\naction: close\n", "line 2: action \"close\" is not supported"),
            ("type: socket\naction: ignore\n", "line 2: type \"socket\" is not supported"),
            ("action: ignore\n", "line 1: the rule above has no type"),
            ("type: file\n---\n", "line 2: the rule above has no action"),
            ("hello\n", "line 1: \"hello\" is no \"key: value\""),
            ("family: inet\n", "line 1: key \"family\" is not supported"),
            (
                "type: filedescriptor\naction: error",
                "line 2: a rule of type \"filedescriptor\" cannot look like this",
            ),
        ] {
            assert_eq!(Policy::parse(text).unwrap_err().to_string(), message, "{text:?}");
        }
    }
}
