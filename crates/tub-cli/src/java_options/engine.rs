//! `CRaCEngine` and `CRaCEngineOptions`.
//!
//! In: a name, options of CRaC's for it. Out: options of `tub checkpoint` and `tub restore`, and the text of help.
//! Invariant: of options that are given twice the last has the word. Not here: the options of the VM around them.

use super::{CommandLine, OptionError};

/// What `CRaCEngineOptions=help` prints: the option, its values, what it is about.
const ENGINE_OPTIONS: [(&str, &str, &str); 9] = [
    ("keep_running", "true|false", "the original goes on after the checkpoint (default: false)"),
    (
        "pause",
        "true|false",
        "engine sim: stops until it is restored, as engine pause (default: false)",
    ),
    ("pids", "keep|new", "ids of a copy (default: keep)"),
    ("memory", "auto|lazy|eager", "how memory is brought back (default: auto)"),
    ("criu_location", "FILE", "engine criu: the program (default: that of TUB_CRIU or PATH)"),
    ("args", "WORD [WORD]", "engine criu: more words for its command line"),
    ("direct_map", "true|false", "taken and without effect: see memory"),
    ("print_command", "true|false", "taken and without effect"),
    ("help", "[=PATTERN]", "prints this, or what of it has the pattern in its name"),
];

impl CommandLine {
    /// Takes `CRaCEngine=NAME`.
    pub(super) fn engine(&mut self, name: &str) -> Result<(), OptionError> {
        self.engine = match name {
            // Those of the CRaC JDKs, whose work the native one does.
            "native" | "criuengine" | "warp" | "crexec" => None,
            "criu" => Some("criu"),
            "sim" | "simengine" => Some("sim"),
            "pause" | "pauseengine" => Some("pause"),
            _ => {
                return Err(OptionError::new(format!(
                    "VM option 'CRaCEngine={name}' cannot be had: the engines are native, criu, sim \
                     and pause"
                )));
            }
        };
        Ok(())
    }

    /// Takes one of those that VM option `place` lists, which says for which of the two commands they are.
    pub(super) fn engine_option(&mut self, option: &str, place: &str) -> Result<(), OptionError> {
        let (key, value) = option.split_once('=').unwrap_or((option, "true"));
        match (key, value) {
            ("keep_running", _) => {
                // The last of several has the word.
                self.for_checkpoint.retain(|it| it != "--leave-running");
                self.for_checkpoint.extend((value == "true").then(|| "--leave-running".into()));
            }
            ("pause", "true" | "false") => self.pauses = value == "true",
            ("direct_map" | "print_command", _) => {}
            ("help", _) => {
                self.help = Some(if option == "help" { String::new() } else { value.to_owned() });
            }
            ("criu_location" | "args", value) if option.contains('=') => {
                if key == "criu_location" && value.contains(char::is_whitespace) {
                    // As prefixes of files.
                    return Err(OptionError::new(format!(
                        "engine option '{option}' cannot be had: a path with a blank; use TUB_CRIU"
                    )));
                }
                let word = if key == "args" { "--criu-option" } else { "--criu" };
                let words = value.split_whitespace().map(|value| format!("{word}={value}"));
                let words: Vec<_> = words.collect();
                for (list, others) in [
                    (&mut self.for_checkpoint, "CRaCRestoreEngineOptions"),
                    (&mut self.for_restore, "CRaCCheckpointEngineOptions"),
                ] {
                    if place != others {
                        list.retain(|it| key == "args" || !it.starts_with("--criu="));
                        list.extend(words.iter().cloned());
                    }
                }
            }
            ("pids", "keep" | "new") | ("memory", "auto" | "lazy" | "eager") => {
                let name = format!("--{key}");
                match self.for_restore.iter().position(|it| *it == name) {
                    Some(at) => value.clone_into(&mut self.for_restore[at + 1]),
                    None => self.for_restore.extend([name, value.to_owned()]),
                }
            }
            ("image_location", _) => {
                // As a CRaC JDK has it.
                eprintln!(
                    "tub: warning: VM-controlled CRaC engine option provided, skipping: image_location"
                );
            }
            _ => {
                return Err(OptionError::new(format!(
                    "engine option '{option}' cannot be had: -XX:CRaCEngineOptions=help lists them"
                )));
            }
        }
        Ok(())
    }

    /// The text of `CRaCEngineOptions=help`, if that is wished for.
    pub(crate) fn help(&self) -> Option<String> {
        let pattern = self.help.as_deref()?;
        let of_pattern = ENGINE_OPTIONS.iter().filter(|(name, ..)| name.contains(pattern));
        let lines = of_pattern.map(|(name, values, text)| format!("{name}={values}\n    {text}\n"));
        Some(lines.collect())
    }
}
