//! `tub check`: what this host allows.
//!
//! In: nothing. Out: each probe, its result, and what follows from it.
//! Invariant: everything is really tried, in helpers where it has side effects; nothing is left.

use crate::report::{Code, Failure};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use tub_host::{Ability, Finding, Helper, Probe, obstacles};
use tubthumping::{CriuEngine, CriuOptions, Engine};

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
    let criu = CriuEngine::new(CriuOptions::default()).check();
    let ways = Ways { criu: criu.map_err(|error| error.to_string()), ..Ways::of(&probes) };
    if args.json {
        println!("{}", describe_json(&probes, &ways));
    } else {
        print!("{}{}", describe(&probes), ways.describe());
    }
    if ways.usable() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure {
        what: "no way of checkpoint and restore works on this host".into(),
        causes: ways.causes(&probes),
        state: String::new(),
        hint: "in a container, try another seccomp profile; else a newer kernel".into(),
        code: Code::HostLacks,
    })
}

/// What is possible here, all in all.
struct Ways {
    /// Of the native engine.
    abilities: Vec<Ability>,
    /// Version of the CRIU that works here, or why there is none.
    criu: Result<String, String>,
}

impl Ways {
    fn of(probes: &[Probe]) -> Self {
        let possible = |ability: &Ability| obstacles(probes, *ability).next().is_none();
        let abilities = Ability::ALL.into_iter().filter(possible).collect();
        Self { abilities, criu: Err("not looked for".into()) }
    }

    fn can(&self, ability: Ability) -> bool {
        self.abilities.contains(&ability)
    }

    /// Whether an image can be taken here, and brought back in one way or the other.
    fn usable(&self) -> bool {
        let back = self.can(Ability::NewIds) || self.can(Ability::KeepIds);
        self.criu.is_ok() || (self.can(Ability::Checkpoint) && back)
    }

    fn causes(&self, probes: &[Probe]) -> Vec<String> {
        let missing = |probe: &&Probe| {
            Ability::ALL.iter().any(|ability| !self.can(*ability) && probe.rules_out(*ability))
        };
        let told = |probe: &Probe| format!("{}: {}", probe.name, probe.follows);
        let criu = self.criu.as_ref().err().map(|reason| format!("the engine criu: {reason}"));
        probes.iter().filter(missing).map(told).chain(criu).collect()
    }

    fn describe(&self) -> String {
        let yes = |ability| if self.can(ability) { "yes" } else { "no" };
        let criu = match &self.criu {
            Ok(version) => format!("yes (CRIU {version})"),
            Err(reason) => format!("no ({reason})"),
        };
        format!(
            "all in all, the engine native: checkpoint {}, restore with the same ids {}, with new \
             ids {}\n            the engine criu:   {criu}\n",
            yes(Ability::Checkpoint),
            yes(Ability::KeepIds),
            yes(Ability::NewIds)
        )
    }
}

fn describe(probes: &[Probe]) -> String {
    let mut page = String::new();
    for probe in probes {
        let finding = match &probe.finding {
            Finding::Works => "yes".into(),
            Finding::Refused(reason) => format!("no ({reason})"),
            Finding::Value(value) => value.clone(),
        };
        page.push_str(&format!("{:<40}{finding}\n", probe.name));
        if !probe.follows.is_empty() {
            page.push_str(&format!("    so: {}\n", probe.follows));
        }
    }
    page
}

fn describe_json(probes: &[Probe], ways: &Ways) -> Value {
    let probe = |probe: &Probe| {
        let (works, detail) = match &probe.finding {
            Finding::Works => (json!(true), Value::Null),
            Finding::Refused(reason) => (json!(false), json!(reason)),
            Finding::Value(value) => (Value::Null, json!(value)),
        };
        let needed_for = probe.needed_for.iter().map(|ability| ability.name());
        json!({
            "name": probe.name,
            "works": works,
            "detail": detail,
            "follows": probe.follows,
            "needed_for": needed_for.collect::<Vec<_>>(),
        })
    };
    let native: serde_json::Map<_, _> = Ability::ALL
        .into_iter()
        .map(|ability| (ability.name().to_owned(), json!(ways.can(ability))))
        .collect();
    json!({
        "usable": ways.usable(),
        "native": native,
        "criu": {
            "works": ways.criu.is_ok(),
            "version": ways.criu.as_ref().ok(),
            "reason": ways.criu.as_ref().err(),
        },
        "probes": probes.iter().map(probe).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes() -> Vec<Probe> {
        vec![
            Probe {
                name: "one",
                finding: Finding::Works,
                follows: "",
                needed_for: &[Ability::Checkpoint],
            },
            Probe {
                name: "two",
                finding: Finding::Refused("EPERM".into()),
                follows: "use --pids new",
                needed_for: &[Ability::KeepIds],
            },
            Probe {
                name: "three",
                finding: Finding::Value("65530".into()),
                follows: "",
                needed_for: &[],
            },
        ]
    }

    #[test]
    fn each_probe_is_a_line_and_what_follows_another() {
        let expected = "one                                     yes\n\
                        two                                     no (EPERM)\n    \
                        so: use --pids new\n\
                        three                                   65530\n";
        assert_eq!(describe(&probes()), expected);
        assert_eq!(
            Ways::of(&probes()).describe(),
            "all in all, the engine native: checkpoint yes, restore with the same ids no, with new \
             ids yes\n            the engine criu:   no (not looked for)\n"
        );
    }

    #[test]
    fn one_way_back_is_enough() {
        let mut probes = probes();
        let object = describe_json(&probes, &Ways::of(&probes));
        assert_eq!(object["usable"], true);
        assert_eq!(object["native"]["restore_same_ids"], false);
        assert_eq!(object["probes"][1]["works"], false);
        assert_eq!(object["probes"][1]["needed_for"][0], "restore_same_ids");
        assert_eq!(object["probes"][2]["detail"], "65530");
        probes[1].needed_for = &[Ability::KeepIds, Ability::NewIds];
        let ways = Ways::of(&probes);
        assert!(!ways.usable());
        assert_eq!(
            ways.causes(&probes),
            ["two: use --pids new", "the engine criu: not looked for"]
        );
        assert!(Ways { criu: Ok("4.2.1".into()), ..ways }.usable());
    }
}
