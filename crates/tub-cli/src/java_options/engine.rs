//! `CRaCEngine` and `CRaCEngineOptions`.
//!
//! In: a name, options of CRaC's for it. Out: options of `tub checkpoint` and `tub restore`, and the text of help.
//! Invariant: pure. Not here: the options of the VM around them.

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
            ("keep_running", "true") => self.for_checkpoint.push("--leave-running".into()),
            ("pause", "true" | "false") => self.pauses = value == "true",
            ("keep_running" | "direct_map" | "print_command", _) => {}
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
                if place != "CRaCRestoreEngineOptions" {
                    self.for_checkpoint.extend(words.iter().cloned());
                }
                if place != "CRaCCheckpointEngineOptions" {
                    self.for_restore.extend(words);
                }
            }
            ("pids", "keep" | "new") => {
                self.for_restore.extend(["--pids".to_owned(), value.to_owned()]);
            }
            ("memory", "auto" | "lazy" | "eager") => {
                self.for_restore.extend(["--memory".to_owned(), value.to_owned()]);
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
