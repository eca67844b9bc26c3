//! Globs, as those of `java.nio.file.FileSystem.getPathMatcher` are described.
//!
//! In: the text of a glob. Out: a regular expression that fits the same paths.
//! Invariant: whatever the text, comparing takes time in proportion to the path (`regex-lite`).
//! Not here: what is compared.

use regex_lite::Regex;

/// The expression that fits what a glob fits, all of it from end to end.
pub(super) fn glob(glob: &str) -> Result<Regex, String> {
    let mut expression = String::from(r"\A(?s:");
    let mut characters = glob.chars().peekable();
    let mut in_group = false;
    while let Some(character) = characters.next() {
        match character {
            '*' if characters.next_if_eq(&'*').is_some() => expression.push_str(".*"),
            '*' => expression.push_str("[^/]*"),
            '?' => expression.push_str("[^/]"),
            '\\' => literal(&mut expression, characters.next().ok_or(r"a '\' before nothing")?),
            '[' => set(&mut expression, &mut characters)?,
            '{' if in_group => return Err("a group within a group".into()),
            '{' => {
                in_group = true;
                expression.push_str("(?:(?:");
            }
            ',' if in_group => expression.push_str(")|(?:"),
            '}' if in_group => {
                in_group = false;
                expression.push_str("))");
            }
            other => literal(&mut expression, other),
        }
    }
    if in_group {
        return Err("a group without '}'".into());
    }
    expression.push_str(r")\z");
    Regex::new(&expression).map_err(|error| error.to_string())
}

type Characters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// One character of a name, out of a set: within it `*`, `?` and `\` stand for themselves.
fn set(expression: &mut String, characters: &mut Characters<'_>) -> Result<(), String> {
    const OPEN: &str = "a set without ']'";
    const OPEN_RANGE: &str = "a range that begins with another";
    const SEPARATOR: &str = "a set with '/' in it";
    let is_negated = characters.next_if_eq(&'!').is_some();
    let mut members: Vec<(char, char)> = Vec::new();
    // One that stands first is no range; nor does it end the set.
    if characters.next_if_eq(&'-').is_some() {
        members.push(('-', '-'));
    }
    loop {
        match characters.next().ok_or(OPEN)? {
            ']' => break,
            '/' => return Err(SEPARATOR.into()),
            first if characters.next_if_eq(&'-').is_some() => {
                // What it would range to may be the end of the set: then it stands for itself.
                if characters.peek() == Some(&']') {
                    members.extend([(first, first), ('-', '-')]);
                    continue;
                }
                let last = characters.next().ok_or(OPEN)?;
                if last == '/' {
                    return Err(SEPARATOR.into());
                }
                if last < first {
                    return Err(format!("a range from '{first}' to '{last}'"));
                }
                members.push((first, last));
                if characters.peek() == Some(&'-') {
                    return Err(OPEN_RANGE.into());
                }
            }
            one => members.push((one, one)),
        }
    }
    if members.is_empty() {
        return Err("an empty set".into());
    }
    // What no name has in it a set does not fit either.
    expression.push_str(if is_negated { "[^/" } else { "[" });
    for &(first, last) in &members {
        for (from, to) in without_separator(first, last) {
            let (from, to) = (u32::from(from), u32::from(to));
            expression.push_str(&format!(r"\x{{{from:x}}}-\x{{{to:x}}}"));
        }
    }
    expression.push(']');
    Ok(())
}

/// A range, in up to two parts, neither of which has the separator in it.
fn without_separator(first: char, last: char) -> impl Iterator<Item = (char, char)> {
    let parts = if (first..=last).contains(&'/') {
        [(first, '.'), ('0', last)]
    } else {
        // The second is empty.
        [(first, last), ('1', '0')]
    };
    parts.into_iter().filter(|(from, to)| from <= to)
}

fn literal(expression: &mut String, character: char) {
    expression.push_str(&regex_lite::escape(character.encode_utf8(&mut [0; 4])));
}
