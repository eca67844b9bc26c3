//! Running other programs, and telling the terminal what takes so long.
//!
//! In: a command. Out: its result; progress on stderr.
//! Invariant: stdout belongs to results, so that `--json` can be piped.
//! Not here: programs that are talked to while they run (`demo::prober`).

use crate::failure::{Failure, Result};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Lines of a failed program's output that are worth repeating.
const LAST_WORDS: usize = 30;

/// Says what begins.
pub(crate) fn progress(text: &str) {
    eprintln!("  {text}");
}

/// Runs `work` under a progress line, and says how long it took.
pub(crate) fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("  {title} …");
    let start = Instant::now();
    let result = work()?;
    let seconds = start.elapsed().as_secs_f64();
    if seconds >= 1.0 {
        eprintln!("    done in {seconds:.1} s");
    }
    Ok(result)
}

/// Runs a program whose output the user wants to see.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status =
        command.stdin(Stdio::null()).status().map_err(|error| cannot_run(command, &error))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("{}: {status}", in_words(command))))
}

/// Runs a program whose output matters only if it fails; gives its stdout.
pub(crate) fn run_quietly(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| cannot_run(command, &error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!(
        "{}: {}\n{}",
        in_words(command),
        output.status,
        last_lines(&format!("{text}{errors}"), LAST_WORDS)
    )))
}

/// Whether a program is there and works. (rustup leaves stand-ins for components that are not.)
pub(crate) fn exists(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The last lines of a text, indented.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(count);
    lines[from..].iter().map(|line| format!("    {line}\n")).collect()
}

fn cannot_run(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: cannot run: {error}", in_words(command)))
}

fn in_words(command: &Command) -> String {
    let mut words = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        words.push(' ');
        words.push_str(&argument.to_string_lossy());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_repeats_the_last_words() {
        let error =
            run_quietly(Command::new("sh").args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.contains("    why"), "{text}");
    }

    #[test]
    fn last_lines_are_the_last() {
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "    b\n    c\n");
    }
}
