//! `cargo xtask test`, `ci` and `prepush`: what must hold before a change is shared.
//!
//! In: the checkout. Out: success, or the first thing that does not hold.
//! Invariant: CI runs the very command that the README tells a reader to run.
//! Not here: rules about the text of the sources (`tidy`).

use crate::failure::{Failure, Result};
use crate::layout::{self, cargo, root};
use crate::process::{exists, run, run_quietly, step};
use crate::{
    bench, containers, criu, examples, fuzz, jdk21, postgres, servers, setup, tidy, uvicorn,
};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;

/// The heading of the README under which the first code block is the test command.
const TEST_HEADING: &str = "## Tests";

/// All tests, with what they need built before. The last line sums up.
pub(crate) fn test() -> Result<()> {
    setup::need_linker()?;
    let jdk = setup::need_jdk(None).ok();
    // Before the thread: two at once cannot install packages. It says itself if there is none.
    let _ = setup::need_maven();
    // Maven waits for the network, cargo for the processor.
    let examples = thread::spawn(examples::build_all);
    let layout = layout::build(jdk.as_ref().map(|jdk| jdk.home.as_path()))?;
    layout::build_packages(&layout)?;
    examples.join().unwrap_or_else(|_| Err(Failure::new("examples: the builder panicked")))?;
    let mut command = cargo_in_a_session();
    command.args(["test", "--workspace", "--no-fail-fast", "--", "--show-output"]);
    command.env("TUB_BIN", layout.tub());
    command.env("TUB_PROBER", layout.prober());
    command.env("TUB_LAYOUT", &layout.dir);
    if let Some(jdk) = &jdk {
        command.env("JAVA_HOME", &jdk.home);
    }
    with_criu(&mut command);
    match containers::need_containers() {
        Ok(dir) => command.env("TUB_CONTAINERS", dir),
        Err(error) => {
            command.env_remove("TUB_CONTAINERS").env("TUB_NO_CONTAINERS", error.to_string())
        }
    };
    match postgres::need_postgres() {
        Ok(root) => command.env("TUB_POSTGRES", root),
        Err(error) => command.env_remove("TUB_POSTGRES").env("TUB_NO_POSTGRES", error.to_string()),
    };
    match servers::need_servers() {
        Ok(root) => command.env("TUB_SERVERS", root),
        Err(error) => command.env_remove("TUB_SERVERS").env("TUB_NO_SERVERS", error.to_string()),
    };
    match uvicorn::need_uvicorn() {
        Ok(dir) => command.env("TUB_UVICORN", dir),
        Err(error) => command.env_remove("TUB_UVICORN").env("TUB_NO_UVICORN", error.to_string()),
    };
    match jdk21::need_jdk_21() {
        Ok(home) => command.env("TUB_JDK_21", home),
        Err(error) => command.env_remove("TUB_JDK_21").env("TUB_NO_JDK_21", error.to_string()),
    };
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| Failure::new(format!("cargo test: cannot run: {error}")))?;
    let out = child.stdout.take().expect("stdout was asked to be a pipe");
    let mut tally = Tally::default();
    for line in BufReader::new(out).split(b'\n') {
        let line = line.map_err(|error| Failure::new(format!("cargo test: {error}")))?;
        if let Some(text) = tally.hear(&String::from_utf8_lossy(&line)) {
            println!("{text}");
        }
    }
    let status =
        child.wait().map_err(|error| Failure::new(format!("cargo test: cannot wait: {error}")))?;
    if !tally.told.is_empty() {
        println!("\nwhat failed, once more:\n{}\n", tally.told.join("\n"));
    }
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    if tally.failed > 0 || !status.success() {
        return Err(Failure::new(format!("tests: {} failed; cargo: {status}", tally.failed)));
    }
    if tally.passed == 0 {
        return Err(Failure::new("tests: none passed, so nothing was tested"));
    }
    Ok(())
}

/// Every subject under every engine that can be had, against the ledger.
pub(crate) fn conformance() -> Result<()> {
    setup::need_linker()?;
    let layout = layout::build(None)?;
    let mut command = cargo_in_a_session();
    command.args(["test", "--package", "tub-e2e", "conformance::", "--", "--nocapture"]);
    command.env("TUB_BIN", layout.tub()).env("TUB_CONFORMANCE", "all");
    with_criu(&mut command);
    run(&mut command)
}

/// Cargo, in a session of this PID namespace. What init or a supervisor outside started has none (its
/// session is 0, credentials(7)), and CRIU does not take a process without.
fn cargo_in_a_session() -> Command {
    let cargo = cargo();
    if !has_no_session() || !exists("setsid") {
        return cargo;
    }
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(cargo.get_program()).current_dir(root());
    command
}

/// The sixth field of proc_pid_stat(5); the name before it may hold anything but a `)` at its end.
fn has_no_session() -> bool {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    after_name.split(' ').nth(3) == Some("0")
}

/// Names a CRIU to the tests, or the reason why there is none.
fn with_criu(command: &mut Command) {
    match criu::need_criu() {
        Ok(program) => command.env("TUB_CRIU", program),
        Err(error) => command.env_remove("TUB_CRIU").env("TUB_NO_CRIU", error.to_string()),
    };
}

/// Counts what `cargo test -- --show-output` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Between `successes:` and the next heading: the output of tests that passed.
    in_successes: bool,
    /// The test whose output is being read, until it said that it was skipped.
    speaker: Option<String>,
    /// Of the binary being run.
    skipped_here: usize,
    /// Between `failures:` and the result: the output of tests that failed.
    in_failures: bool,
    /// Lines of the failed test being read.
    said: usize,
    /// What failed tests said, to be repeated at the end, where it is looked for.
    told: Vec<String>,
}

/// Lines that are repeated of a failed test: its message, and not the end of a long stack.
const REPEATED: usize = 30;

impl Tally {
    /// Takes one line, and gives what is worth printing of it.
    fn hear(&mut self, line: &str) -> Option<String> {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.in_successes = false;
            self.in_failures = false;
            let count = |what: &str| {
                let before = result.split_once(what)?.0;
                before.rsplit([' ', ';', '.']).find(|word| !word.is_empty())?.parse::<usize>().ok()
            };
            let ignored = count(" ignored").unwrap_or(0);
            self.passed += count(" passed").unwrap_or(0).saturating_sub(self.skipped_here);
            self.failed += count(" failed").unwrap_or(0);
            self.skipped += ignored + self.skipped_here;
            self.skipped_here = 0;
            return Some(line.to_owned());
        }
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => {
                self.in_successes = false;
                // The second time it heads the mere names.
                self.in_failures = !self.in_failures;
            }
            _ => {}
        }
        if self.in_failures && line != "failures:" {
            self.said = if line.starts_with("---- ") { 0 } else { self.said + 1 };
            if self.said <= REPEATED && !line.is_empty() {
                self.told.push(line.to_owned());
            }
        }
        if !self.in_successes {
            return Some(line.to_owned());
        }
        if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.speaker = Some(name.to_owned());
        } else if let Some(reason) = line.strip_prefix("skipped: ")
            && let Some(name) = self.speaker.take()
        {
            self.skipped_here += 1;
            return Some(format!("test {name} skipped: {reason}"));
        }
        None
    }
}

/// Everything that the continuous integration checks.
pub(crate) fn ci() -> Result<()> {
    setup::everything()?;
    lint()?;
    dependencies()?;
    let test = test_command()?;
    eprintln!("  {test}   (the README's test command)");
    run(Command::new("sh").arg("-c").arg(&test).current_dir(root()))?;
    step("benchmarks, only to see that they work", bench::check)?;
    fuzz::sample()
}

/// The quick part of `ci`, before a change leaves the machine.
pub(crate) fn prepush() -> Result<()> {
    setup::everything()?;
    lint()?;
    step("unit tests", || run(cargo().args(["test", "--quiet", "--workspace", "--lib", "--bins"])))
}

fn lint() -> Result<()> {
    step("formatting", || run(cargo().args(["fmt", "--all", "--check"])))?;
    step("tidy", tidy::run)?;
    step("clippy", || {
        let flags = ["--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
        run(cargo().arg("clippy").args(flags))
    })?;
    step("documentation", || {
        let flags = ["--quiet", "--workspace", "--no-deps", "--document-private-items"];
        // Private items are documented too, so links to them lead somewhere.
        let strict = "-D warnings -A rustdoc::private_intra_doc_links";
        run(cargo().arg("doc").args(flags).env("RUSTDOCFLAGS", strict))
    })
}

/// Licences, sources and bans of outside dependencies (`deny.toml`), where the tool is there.
fn dependencies() -> Result<()> {
    if !exists("cargo-deny") {
        println!("skipped: licences of dependencies: cargo-deny is not installed");
        return Ok(());
    }
    step("dependencies", || {
        for manifest in ["Cargo.toml", "crates/tub-restorer/Cargo.toml", fuzz::MANIFEST] {
            let mut command = cargo();
            command.args(["deny", "--log-level", "error", "--manifest-path", manifest]);
            run_quietly(command.args(["check", "licenses", "bans", "sources"]))?;
        }
        Ok(())
    })
}

/// The test command, as the README gives it.
fn test_command() -> Result<String> {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).map_err(|error| Failure::io("read", &path, &error))?;
    first_command_under(&readme, TEST_HEADING).ok_or_else(|| {
        Failure::new(format!("{}: no code block under {TEST_HEADING:?}", path.display()))
    })
}

fn first_command_under(text: &str, heading: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| *line != heading).skip(1);
    lines
        .by_ref()
        .take_while(|line| !line.starts_with("## "))
        .find(|line| line.starts_with("```"))?;
    let command = lines.next()?.trim();
    (!command.is_empty()).then(|| command.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\nrunning 4 tests\ntest a ... ok\ntest b ... ok\ntest c ... FAILED\n\
        test d ... ignored, too slow\n\nsuccesses:\n\n---- a stdout ----\nskipped: needs root\n\
        skipped: once more\n\n---- b stdout ----\nnothing of note\n\nsuccesses:\n    a\n    b\n\n\
        failures:\n\n---- c stdout ----\nskipped: is not counted here\n\nfailures:\n    c\n\n\
        test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out\n";

    #[test]
    fn a_test_that_could_not_run_is_skipped_not_passed() {
        let mut tally = Tally::default();
        let printed: Vec<String> = SAID.lines().filter_map(|line| tally.hear(line)).collect();
        assert_eq!((tally.passed, tally.failed, tally.skipped), (1, 1, 2));
        assert!(printed.contains(&"test a skipped: needs root".to_owned()), "{printed:#?}");
        assert!(!printed.iter().any(|line| line.contains("nothing of note")));
        assert!(printed.iter().any(|line| line.contains("---- c stdout")));
        assert_eq!(tally.told, ["---- c stdout ----", "skipped: is not counted here"]);
    }

    #[test]
    fn the_readme_has_a_test_command() {
        assert_eq!(test_command().unwrap(), "cargo xtask test");
    }

    #[test]
    fn a_block_under_another_heading_is_not_taken() {
        let text = "## Tests\nwords\n## Other\n```\nrm\n```\n";
        assert_eq!(first_command_under(text, "## Tests"), None);
    }
}
