//! `tub check`: what this host allows.
//!
//! In: nothing. Out: each probe, its result, and what follows from it.
//! Invariant: everything is really tried, in helpers where it has side effects; nothing is left.

use crate::report::{Code, Failure};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use tub_host::{Finding, Helper, Probe};

/// Tell what this host allows: each probe, its result, and what follows from it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where images are to lie: their file system may forbid executable mappings.
    #[arg(long, value_name = "DIR", default_value = ".")]
    image: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Try one thing in this process, which it changes for good. For `tub check` itself.
    #[arg(long, value_name = "NAME", hide = true)]
    helper: Option<String>,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let helper = |name: &str| {
        // The program that runs, even if its file has been replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.args(["check", "--helper", name]);
        command
    };
    if let Some(name) = &args.helper {
        print!("{}", tub_host::try_in_helper(&Helper(&helper), name));
        return Ok(ExitCode::SUCCESS);
    }
    let probes = tub_host::probe(&Helper(&helper), &args.image);
    if args.json {
        println!("{}", describe_json(&probes));
    } else {
        print!("{}", describe(&probes));
    }
    let fatal: Vec<String> = probes
        .iter()
        .filter(|probe| probe.is_fatal())
        .map(|probe| format!("{}: {}", probe.name, probe.follows))
        .collect();
    if fatal.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure {
        what: "this host lacks what nothing works without".into(),
        causes: fatal,
        state: String::new(),
        hint: "in a container, try another seccomp profile; else a newer kernel".into(),
        code: Code::HostLacks,
    })
}

fn describe(probes: &[Probe]) -> String {
    let mut page = String::new();
    for probe in probes {
        let finding = match &probe.finding {
            Finding::Works => "yes".into(),
            Finding::Refused(reason) => format!("no ({reason})"),
            Finding::Value(value) => value.clone(),
        };
        page.push_str(&format!("{:<34}{finding}\n", probe.name));
        if !probe.follows.is_empty() {
            page.push_str(&format!("    so: {}\n", probe.follows));
        }
    }
    page
}

fn describe_json(probes: &[Probe]) -> Value {
    let probe = |probe: &Probe| {
        let (works, detail) = match &probe.finding {
            Finding::Works => (json!(true), Value::Null),
            Finding::Refused(reason) => (json!(false), json!(reason)),
            Finding::Value(value) => (Value::Null, json!(value)),
        };
        json!({
            "name": probe.name,
            "works": works,
            "detail": detail,
            "follows": probe.follows,
            "essential": probe.essential,
        })
    };
    let fatal = probes.iter().any(Probe::is_fatal);
    json!({ "usable": !fatal, "probes": probes.iter().map(probe).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes() -> Vec<Probe> {
        vec![
            Probe { name: "one", finding: Finding::Works, follows: "", essential: true },
            Probe {
                name: "two",
                finding: Finding::Refused("EPERM".into()),
                follows: "use --pids new",
                essential: false,
            },
            Probe {
                name: "three",
                finding: Finding::Value("65530".into()),
                follows: "",
                essential: false,
            },
        ]
    }

    #[test]
    fn each_probe_is_a_line_and_what_follows_another() {
        let expected = "one                               yes\n\
                        two                               no (EPERM)\n    \
                        so: use --pids new\n\
                        three                             65530\n";
        assert_eq!(describe(&probes()), expected);
    }

    #[test]
    fn the_object_says_whether_anything_essential_is_missing() {
        let mut probes = probes();
        assert_eq!(describe_json(&probes)["usable"], true);
        assert_eq!(describe_json(&probes)["probes"][1]["works"], false);
        assert_eq!(describe_json(&probes)["probes"][2]["detail"], "65530");
        probes[1].essential = true;
        assert_eq!(describe_json(&probes)["usable"], false);
    }
}
