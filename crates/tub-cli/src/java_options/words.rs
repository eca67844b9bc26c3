//! Where else options of `java` stand: `@file`, variables, files of VM options.
//!
//! In: the words of a command line, the environment. Out: the words with CRaC's options among them.
//! Invariant: what holds none of CRaC's options stays where it is, for the stock JVM to read.
//!
//! JVM(since 9): `@file` holds words parted by blanks, with quotes, `\` before a character that stands for
//! itself in them, and comments from `#` on (the `java` man page); variables and `-XX:VMOptionsFile` have the
//! quotes alone; `_JAVA_OPTIONS` has the last word; `-XX:Flags` has names of options without `-XX:`, and comments.
//! A product VM does not read `.hotspotrc`, and says so.

use super::{OptionError, WITH_VALUE, crac_option};
use std::ffi::OsString;
use std::fs;

/// Variables whose words come before those of the command line, the first one first.
pub(crate) const VARIABLES: [&str; 2] = ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"];

/// The variable whose words come after the options of the command line.
///
/// JVM(since 17): `Arguments::parse` takes `JAVA_TOOL_OPTIONS`, then the command line, then this; the last
/// of several values holds.
pub(crate) const LAST_VARIABLE: &str = "_JAVA_OPTIONS";

/// The words with those of a variable before them, where it has options of CRaC's; whether it has.
pub(crate) fn with_variable(
    words: &[OsString],
    variable: Option<OsString>,
) -> (Vec<OsString>, bool) {
    let more = words_of(variable);
    let is_used = !more.is_empty();
    (more.into_iter().chain(words.iter().cloned()).collect(), is_used)
}

/// The same with those of the variable before the main class, `-jar` or `-m`.
pub(crate) fn with_last_variable(
    words: Vec<OsString>,
    variable: Option<OsString>,
) -> (Vec<OsString>, bool) {
    let more = words_of(variable);
    let is_used = !more.is_empty();
    let mut all = words;
    let at = program_at(&all);
    all.splice(at..at, more);
    (all, is_used)
}

/// The words of a variable that has options of CRaC's.
fn words_of(variable: Option<OsString>) -> Vec<OsString> {
    let text = variable.unwrap_or_default().to_string_lossy().into_owned();
    if !text.contains("-XX:") || !text.split_whitespace().any(|word| crac_option(word).is_some()) {
        return Vec::new();
    }
    split(&text, Form::Quotes).into_iter().map(OsString::from).collect()
}

/// Where the options of a command line end.
fn program_at(words: &[OsString]) -> usize {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let text = word.to_string_lossy();
        let names_it = text == "-jar" || text == "-m" || text.starts_with("--module");
        if names_it && !text.starts_with("--module-path") || !text.starts_with(['-', '@']) {
            break;
        }
        at += if WITH_VALUE.contains(&&*text) { 2 } else { 1 };
    }
    at.min(words.len())
}

/// The words with files of options replaced by what they say, where that has options of CRaC's.
pub(crate) fn expand(words: Vec<OsString>) -> Result<Vec<OsString>, OptionError> {
    let mut expanded = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        let inside = inside(&text)?;
        if inside.iter().any(|word| crac_option(word).is_some()) {
            expanded.extend(inside.into_iter().map(OsString::from));
            continue;
        }
        expanded.push(word);
        if WITH_VALUE.contains(&text.as_str()) {
            expanded.extend(words.next());
        } else if text == "-jar" || !text.starts_with(['-', '@']) {
            // From here on the words are the program's.
            expanded.extend(words);
            break;
        }
    }
    Ok(expanded)
}

/// What stands in the file that a word names; nothing if it names none.
fn inside(word: &str) -> Result<Vec<String>, OptionError> {
    let read = |file: &str| {
        fs::read_to_string(file)
            .map_err(|error| OptionError::new(format!("{word}: cannot read: {error}")))
    };
    if let Some(file) = word.strip_prefix('@').filter(|file| !file.starts_with('@')) {
        return Ok(split(&read(file)?, Form::Whole));
    }
    if let Some(file) = word.strip_prefix("-XX:VMOptionsFile=") {
        return Ok(split(&read(file)?, Form::Quotes));
    }
    let Some(file) = word.strip_prefix("-XX:Flags=") else { return Ok(Vec::new()) };
    Ok(split(&read(file)?, Form::Whole).iter().map(|flag| format!("-XX:{flag}")).collect())
}

/// How a text of words is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Quotes of either kind, and nothing else that is not itself.
    Quotes,
    /// Within them `\` before a character that stands for itself as well, and `#` starts a comment.
    Whole,
}

/// Words parted by blanks, within quotes of either kind as they are.
fn split(text: &str, form: Form) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', Some(_)) if form == Form::Whole => {
                word.get_or_insert_default().extend(characters.next())
            }
            (_, Some(open)) if character == open => quote = None,
            (_, Some(_)) => word.get_or_insert_default().push(character),
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            ('#', None) if form == Form::Whole && word.is_none() => {
                characters.by_ref().find(|&character| character == '\n');
            }
            (_, None) if character.is_whitespace() => words.extend(word.take()),
            (_, None) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn files_and_the_variable_are_read_as_java_reads_them() {
        let text = "a \"b c\" # no\n'd\\.e' f#g\t\"\"";
        assert_eq!(split(text, Form::Whole), ["a", "b c", "d.e", "f#g", ""]);
        assert_eq!(split(text, Form::Quotes), ["a", "b c", "#", "no", "d\\.e", "f#g", ""]);
        let variable = Some(OsString::from("-XX:CRaCCheckpointTo='my cr' -Da=b"));
        let (all, used) = with_variable(&words("Main"), variable);
        assert!(used);
        assert_eq!(all, ["-XX:CRaCCheckpointTo=my cr", "-Da=b", "Main"]);
        assert!(!with_variable(&words("Main"), Some("-Da=b".into())).1);
        let last = || Some(OsString::from("-XX:CRaCCheckpointTo=cr"));
        for (line, at) in [("-cp x Main a", 2), ("-Xmx1g -jar a.jar b", 1), ("-Da=b", 1)] {
            let (all, used) = with_last_variable(words(line), last());
            let mut expected = words(line);
            expected.insert(at, "-XX:CRaCCheckpointTo=cr".into());
            assert!(used && all == expected, "{all:?}");
        }
        let (all, _) = with_last_variable(words("-p mods -m app/Main"), last());
        assert_eq!(all, words("-p mods -XX:CRaCCheckpointTo=cr -m app/Main"));
        assert_eq!(expand(words("Main @nothing")).unwrap(), words("Main @nothing"));
        assert!(expand(words("@/no/such/file Main")).is_err());
    }

    #[test]
    fn files_of_flags_are_taken_apart_where_they_hold_cracs() {
        let file = std::env::temp_dir().join(format!("tub-flags-{}", std::process::id()));
        std::fs::write(&file, "# how\n+UseSerialGC\nCRaCCheckpointTo=cr\n").unwrap();
        let word = OsString::from(format!("-XX:Flags={}", file.display()));
        let all = expand(vec![word.clone(), "Main".into()]).unwrap();
        assert_eq!(all, ["-XX:+UseSerialGC", "-XX:CRaCCheckpointTo=cr", "Main"]);
        std::fs::write(&file, "+UseSerialGC\n").unwrap();
        assert_eq!(expand(vec![word.clone()]).unwrap(), [word]);
        std::fs::remove_file(&file).unwrap();
    }
}
