//! CRaC's options among those of `java`.
//!
//! In: words of a command line. Out: which of them are CRaC's, and what is left for the stock JVM.
//! Invariant: nothing is run, and of the environment only labels are read. What cannot be had is an error with a sentence.
//! Not here: what is done with it (`java`).

mod engine;
pub(crate) mod place;
mod words;

pub(crate) use words::{LAST_VARIABLE, VARIABLES, expand, with_last_variable, with_variable};

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// Options of `java` that take the next word.
const WITH_VALUE: [&str; 17] = [
    "-cp",
    "-classpath",
    "--class-path",
    "-p",
    "--module-path",
    "--upgrade-module-path",
    "--add-modules",
    "--limit-modules",
    "--add-exports",
    "--add-opens",
    "--add-reads",
    "--patch-module",
    "--enable-native-access",
    "--describe-module",
    "-d",
    "--source",
    "--illegal-native-access",
];

/// What cannot be had, and why.
const REFUSED: [(&str, &str); 7] = [
    ("ShowCPUFeatures", "the VM's numbering of processor features is its own; see /proc/cpuinfo"),
    ("CRaCCPUCountInit", "the number of processors is read once by the VM"),
    ("CRaCHeapErgonomics", "the size of the heap is decided at the start of the VM"),
    ("CRaCMaxHeapSizeBeforeCheckpoint", "the size of the heap is decided at the start of the VM"),
    ("CRaCHeapDumpOnCheckpointException", "use `jcmd PID GC.heap_dump`"),
    (
        "CRaCPauseOnCheckpointError",
        "the process goes on after a refusal, and can be looked at then",
    ),
    ("CRaCResetStartTime", "the start time is always that of the restore"),
];

/// Options that a restore takes and has no use for: they are about other options.
const ABOUT_OPTIONS: [&str; 4] = [
    "UnlockDiagnosticVMOptions",
    "UnlockExperimentalVMOptions",
    "IgnoreUnrecognizedVMOptions",
    "UnlockCommercialFeatures",
];

fn is_refused(name: &str) -> bool {
    REFUSED.iter().any(|(refused, _)| *refused == name)
}

/// What is asked of the processor before a restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CpuCheck {
    /// All features that the image may use.
    #[default]
    Compatible,
    /// The same features, and no others.
    Exact,
}

/// A word that is not understood or cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OptionError(String);

impl OptionError {
    /// In the words given.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl std::error::Error for OptionError {}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A command line of `java`, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CommandLine {
    checkpoint_to: Option<OsString>,
    restore_from: Option<OsString>,
    may_start_instead: bool,
    is_crac: bool,
    /// Of a checkpoint, where it is not the native one; and whether `sim` is to pause.
    engine: Option<&'static str>,
    pauses: bool,
    for_run: Vec<String>,
    for_checkpoint: Vec<String>,
    for_restore: Vec<String>,
    required_labels: Vec<(String, String)>,
    cpu_check: CpuCheck,
    cpu_message: Option<String>,
    /// The pattern of `CRaCEngineOptions=help`.
    help: Option<String>,
    max_heap: Option<u64>,
    /// Without CRaC's own.
    stock: Vec<OsString>,
    /// And flight recordings, which a restored VM takes as well.
    properties: Vec<OsString>,
    /// Options that only the start of a VM takes.
    unsettable: Vec<String>,
    /// A main class and its arguments; none for `-jar` and `-m`, which a restore has no use for.
    program: Vec<OsString>,
}

impl CommandLine {
    /// Takes the words apart.
    pub(crate) fn parse(words: &[OsString]) -> Result<Self, OptionError> {
        let mut line = Self::default();
        let is_lenient = words.iter().any(|word| word == "-XX:+IgnoreUnrecognizedVMOptions");
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let text = word.to_string_lossy();
            if let Some(option) = crac_option(&text) {
                line.is_crac = true;
                match line.add(option, word) {
                    // As a VM that does not know it.
                    Err(_) if is_lenient => {}
                    outcome => outcome?,
                }
                continue;
            }
            line.stock.push(word.clone());
            if text == "-jar" || text == "-m" || text == "--module" || text.starts_with("--module=")
            {
                line.stock.extend(words.by_ref().cloned());
                break;
            }
            if WITH_VALUE.contains(&&*text) {
                line.stock.extend(words.next().cloned());
            } else if text.starts_with("-D") || is_recording(&text) {
                line.properties.push(word.clone());
            } else if let Some(size) = text.strip_prefix("-Xmx") {
                line.max_heap = bytes(size);
                line.unsettable.push(text.into_owned());
            } else if text.starts_with("-X") && !is_about_options(&text) {
                line.unsettable.push(text.into_owned());
            } else if !text.starts_with('-') {
                line.program.push(word.clone());
                line.program.extend(words.by_ref().cloned());
                line.stock.extend(line.program[1..].iter().cloned());
            }
        }
        match (line.pauses, line.engine) {
            (false, _) | (true, Some("pause")) => {}
            (true, Some("sim")) => line.engine = Some("pause"),
            (true, _) if is_lenient => {}
            (true, _) => {
                return Err(OptionError::new(
                    "engine option 'pause=true' cannot be had: it is one of the engine sim",
                ));
            }
        }
        Ok(line)
    }

    fn add(&mut self, option: &str, word: &OsStr) -> Result<(), OptionError> {
        // The value's own bytes, since it may be a path that is no text.
        let value = || {
            let at = word.as_bytes().iter().position(|&byte| byte == b'=');
            let value = at.map(|at| OsStr::from_bytes(&word.as_bytes()[at + 1..]).to_owned());
            value.ok_or_else(|| OptionError(format!("{option}: has no value")))
        };
        let name = option.trim_start_matches(['+', '-']);
        let name = name.split('=').next().unwrap_or(name);
        let is_on = option.starts_with('+');
        let place = || {
            let is_there = |place: &OsString| !place.is_empty();
            let missing =
                || OptionError(format!("VM option '{name}' has no value: name a directory"));
            Some(value()?).filter(is_there).ok_or_else(missing)
        };
        match name {
            "CRaCCheckpointTo" => self.checkpoint_to = Some(place()?),
            "CRaCRestoreFrom" => self.restore_from = Some(place()?),
            "CRaCIgnoreRestoreIfUnavailable" => self.may_start_instead = is_on,
            "CRaCEngine" | "CREngine" => self.engine(&value()?.to_string_lossy())?,
            // JVM: `ccstrlist`, as CRaCAllowedOpenFilePrefixes: of several each adds to the list
            // (openjdk/crac globals.hpp, and crac_engine.cpp, which parts them at commas and at the
            // line ends between the several).
            "CRaCEngineOptions" | "CRaCCheckpointEngineOptions" | "CRaCRestoreEngineOptions" => {
                for option in value()?.to_string_lossy().split(',').filter(|it| !it.is_empty()) {
                    self.engine_option(option, name)?;
                }
            }
            "CRaCImageLabels" => {
                for (name, label) in labels(&value()?.to_string_lossy()) {
                    let option = format!("--label={name}={label}");
                    if option.contains(char::is_whitespace) {
                        return Err(OptionError(format!(
                            "{option}: a label with a blank cannot be had at the start: use \
                             jcmd PID JDK.checkpoint labels=…"
                        )));
                    }
                    self.for_checkpoint.push(option);
                }
            }
            "CRaCRequiredImageLabels" => {
                self.required_labels.extend(labels(&value()?.to_string_lossy()));
            }
            "CRaCSkipCheckpoint" if is_on => self.engine("sim")?,
            "CRaCSkipCheckpoint" => {}
            "CRaCIgnoredFileDescriptors" => {
                // JVM: `ccstr` (openjdk/crac globals.hpp): of several the last has the word.
                self.for_run.retain(|it| !it.starts_with("--keep-fds="));
                self.for_run.push(format!("--keep-fds={}", value()?.to_string_lossy()));
            }
            "CRaCAllowedOpenFilePrefixes" => {
                for prefix in value()?.to_string_lossy().split(',').filter(|it| !it.is_empty()) {
                    // The options travel in a variable, parted by blanks.
                    if prefix.contains(char::is_whitespace) {
                        return Err(OptionError(format!(
                            "{option}: a prefix with a blank cannot be had: use \
                             -Djdk.crac.resource-policies=FILE"
                        )));
                    }
                    self.for_checkpoint.push(format!("--allow-open={prefix}"));
                }
            }
            "CPUFeatures" if value()? == "native" => {}
            "CPUFeatures" => {
                return Err(OptionError(format!(
                    "VM option '{option}' cannot be had: compiled code uses what the VM finds \
                     (CPUFeatures=native); take the checkpoint on the least of the hosts"
                )));
            }
            "CheckCPUFeatures" => {
                self.cpu_check = match &*value()?.to_string_lossy() {
                    "compatible" => CpuCheck::Compatible,
                    "exact" => CpuCheck::Exact,
                    _ => {
                        return Err(OptionError(format!(
                            "VM option '{option}' cannot be had: code that uses what the processor \
                             lacks would crash; there are compatible and exact"
                        )));
                    }
                }
            }
            "CheckCPUFeaturesMessage" => {
                self.cpu_message = Some(value()?.to_string_lossy().into_owned());
            }
            // Ids are kept by a namespace of their own, whatever is free here.
            "CRaCMinPid" => {}
            // Every refusal names each descriptor.
            "CRaCPrintResourcesOnCheckpoint" => {}
            "CRaCResetStartTime" if is_on => {}
            "CRaCTraceStartupTime" if is_on => {
                self.stock.push("-Djdk.crac.trace-startup-time=true".into());
            }
            "CRaCTraceStartupTime" => {}
            // What is not wished for is not done.
            _ if is_refused(name) && name != "CRaCResetStartTime" && option.starts_with('-') => {}
            "CRaCMaxHeapSizeBeforeCheckpoint" if value()? == "0" => {}
            _ => {
                let why = REFUSED.iter().find(|(refused, _)| *refused == name);
                let why = why.map_or("it is not known here", |(_, why)| why);
                return Err(OptionError(format!("VM option '{name}' cannot be had: {why}")));
            }
        }
        Ok(())
    }

    /// Whether there is anything of CRaC's.
    pub(crate) fn is_crac(&self) -> bool {
        self.is_crac
    }

    pub(crate) fn checkpoint_to(&self) -> Option<&OsStr> {
        self.checkpoint_to.as_deref()
    }

    pub(crate) fn restore_from(&self) -> Option<&OsStr> {
        self.restore_from.as_deref()
    }

    /// Whether the program may be started where the image cannot be used.
    pub(crate) fn may_start_instead(&self) -> bool {
        self.may_start_instead
    }

    /// What is asked of the processor.
    pub(crate) fn cpu_check(&self) -> CpuCheck {
        self.cpu_check
    }

    /// What is said where the processor lacks features: `%c`, `%s` and `%m` stand for those that are
    /// here, those of the image, and those of both.
    pub(crate) fn cpu_message(&self) -> Option<&str> {
        self.cpu_message.as_deref()
    }

    /// Labels that the image must have.
    pub(crate) fn required_labels(&self) -> &[(String, String)] {
        &self.required_labels
    }

    /// `-Xmx`, in bytes.
    pub(crate) fn max_heap(&self) -> Option<u64> {
        self.max_heap
    }

    /// Options of `tub run`.
    pub(crate) fn run_options(&self) -> &[String] {
        &self.for_run
    }

    /// Options of `tub checkpoint`.
    pub(crate) fn checkpoint_options(&self) -> Vec<String> {
        // The image directory is overwritten, as a CRaC JDK does it.
        let mut options = vec!["--replace".to_owned()];
        options.extend(self.engine.map(|engine| format!("--engine={engine}")));
        options.extend(self.for_checkpoint.iter().cloned());
        options
    }

    /// Options of `tub restore`.
    pub(crate) fn restore_options(&self) -> &[String] {
        &self.for_restore
    }

    /// What the restored JVM is given.
    pub(crate) fn restore_words(&self) -> Result<Vec<OsString>, OptionError> {
        if let Some(option) = self.unsettable.first() {
            let name = option.trim_start_matches("-XX:").trim_start_matches(['+', '-']);
            let name = name.split('=').next().unwrap_or(name);
            return Err(OptionError(format!(
                "VM option '{name}' is not restore-settable and is not available on restore"
            )));
        }
        Ok(self.properties.iter().chain(&self.program).cloned().collect())
    }

    /// The command line without CRaC's options.
    pub(crate) fn stock_words(&self) -> &[OsString] {
        &self.stock
    }
}

/// Whether an option starts a flight recording: `=`, `:` or nothing is behind the name.
fn is_recording(option: &str) -> bool {
    let rest = option.strip_prefix("-XX:StartFlightRecording");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['=', ':']))
}

/// `name=value`, `name=$VARIABLE`, or the name of a variable; one that is not set is passed over with a
/// warning, as a CRaC JDK does it.
fn labels(list: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    for label in list.split(',').filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once('=').map_or((label, None), |(n, v)| (n, Some(v)));
        let variable = match value {
            Some(value) => value.strip_prefix('$'),
            None => Some(name),
        };
        let found = match variable {
            Some(variable) => std::env::var(variable).ok(),
            None => value.map(str::to_owned),
        };
        match found {
            Some(found) => labels.push((name.to_owned(), found)),
            None => eprintln!("tub: warning: label {label} is left out: its variable is not set"),
        }
    }
    labels
}

fn is_about_options(word: &str) -> bool {
    let name = word.trim_start_matches("-XX:").trim_start_matches(['+', '-']);
    ABOUT_OPTIONS.contains(&name)
}

/// JVM: a number with `k`, `m`, `g` or `t` behind it.
fn bytes(size: &str) -> Option<u64> {
    let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &*size[digits.len()..].to_ascii_lowercase() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// What follows `-XX:` of an option of CRaC's.
fn crac_option(word: &str) -> Option<&str> {
    let option = word.strip_prefix("-XX:")?;
    let name = option.trim_start_matches(['+', '-']);
    let is_crac = ["CRaC", "CREngine", "CPUFeatures", "CheckCPUFeatures", "ShowCPUFeatures"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    is_crac.then_some(option)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    fn parse(text: &str) -> Result<CommandLine, OptionError> {
        CommandLine::parse(&words(text))
    }

    #[test]
    fn what_is_cracs_is_taken_out_and_the_rest_stays() {
        let line = parse(
            "-Xmx1g -XX:CRaCCheckpointTo=cr -cp a:b -XX:CRaCEngineOptions=keep_running=true -Dk=v \
             com.acme.Main -XX:CRaCRestoreFrom=x",
        )
        .unwrap();
        assert_eq!(line.checkpoint_to(), Some(OsStr::new("cr")));
        assert_eq!(line.restore_from(), None);
        assert_eq!(line.checkpoint_options(), ["--replace", "--leave-running"]);
        let stock = words("-Xmx1g -cp a:b -Dk=v com.acme.Main -XX:CRaCRestoreFrom=x");
        assert_eq!(line.stock_words(), stock);
        assert!(!parse("-jar app.jar -XX:CRaCCheckpointTo=cr").unwrap().is_crac());
    }

    #[test]
    fn the_last_of_several_options_for_an_engine_has_the_word() {
        let options = |list: &[&str]| {
            let option = |list: &&str| OsString::from(format!("-XX:CRaCEngineOptions={list}"));
            CommandLine::parse(&list.iter().map(option).collect::<Vec<_>>()).unwrap()
        };
        let line = options(&["pids=keep,memory=lazy,,pids=new", "", "memory=eager"]);
        assert_eq!(line.restore_options(), ["--pids", "new", "--memory", "eager"]);
        let line = options(&["keep_running=true", "keep_running=false"]);
        assert_eq!(line.checkpoint_options(), ["--replace"]);
        let line = options(&["criu_location=/a,args=-v4", "criu_location=/b,image_location=x"]);
        assert_eq!(line.restore_options(), ["--criu-option=-v4", "--criu=/b"]);
    }

    #[test]
    fn what_cannot_be_had_may_be_declined() {
        let line = "-XX:CRaCCheckpointTo=cr -XX:-CRaCHeapErgonomics -XX:-CRaCCPUCountInit \
                    -XX:-CRaCPauseOnCheckpointError -XX:CRaCMaxHeapSizeBeforeCheckpoint=0";
        assert_eq!(parse(line).unwrap().stock_words(), Vec::<OsString>::new());
    }

    #[test]
    fn a_restore_takes_properties_and_a_main_class() {
        let line = parse("-XX:CRaCRestoreFrom=cr -cp x -Da=b Main one").unwrap();
        assert_eq!(line.restore_words().unwrap(), words("-Da=b Main one"));
        let recording = "-XX:StartFlightRecording:filename=a.jfr";
        let line = parse(&format!("-XX:CRaCRestoreFrom=cr {recording} Main")).unwrap();
        assert_eq!(line.restore_words().unwrap(), [recording, "Main"].map(OsString::from));
        let line = parse("-XX:CRaCRestoreFrom=cr -XX:CRaCEngineOptions=pids=new").unwrap();
        assert_eq!(line.restore_words().unwrap(), Vec::<OsString>::new());
        assert_eq!(line.restore_options(), ["--pids", "new"]);
        let line = parse("-XX:+CRaCIgnoreRestoreIfUnavailable -XX:CRaCRestoreFrom=c -jar a.jar x");
        let line = line.unwrap();
        assert!(line.may_start_instead());
        assert_eq!(line.restore_words().unwrap(), Vec::<OsString>::new());
        let line = parse("-XX:CRaCRestoreFrom=cr -XX:+UseSerialGC").unwrap();
        assert_eq!(
            line.restore_words().unwrap_err().to_string(),
            "VM option 'UseSerialGC' is not restore-settable and is not available on restore"
        );
    }

    #[test]
    fn options_become_those_of_tub() {
        let line = parse(
            "-XX:CRaCCheckpointTo=cr -XX:+CRaCSkipCheckpoint -XX:CRaCIgnoredFileDescriptors=7,/x \
             -XX:CRaCAllowedOpenFilePrefixes=/sys/,/var/a -XX:CPUFeatures=native -Xmx512m -XX:CRaCImageLabels=a=b,no_such_variable Main",
        )
        .unwrap();
        let expected = [
            "--replace",
            "--engine=sim",
            "--allow-open=/sys/",
            "--allow-open=/var/a",
            "--label=a=b",
        ];
        assert_eq!(line.checkpoint_options(), expected);
        assert_eq!(line.run_options(), ["--keep-fds=7,/x"]);
        assert_eq!(line.max_heap(), Some(512 << 20));
        // Given twice, lists add up, where a single text is replaced: as HotSpot has them.
        let line = parse(
            "-XX:CRaCCheckpointTo=cr -XX:CRaCIgnoredFileDescriptors=7,/x -XX:CRaCIgnoredFileDescriptors=8 \
             -XX:CRaCAllowedOpenFilePrefixes=/sys/ -XX:CRaCAllowedOpenFilePrefixes=/var/a \
             -XX:CRaCRestoreEngineOptions=pids=new -XX:CRaCEngineOptions=memory=lazy Main",
        )
        .unwrap();
        assert_eq!(line.run_options(), ["--keep-fds=8"]);
        let expected = ["--replace", "--allow-open=/sys/", "--allow-open=/var/a"];
        assert_eq!(line.checkpoint_options(), expected);
        assert_eq!(line.restore_options(), ["--pids", "new", "--memory", "lazy"]);
        let line = parse(
            "-XX:CRaCRestoreFrom=cr -XX:+UnlockExperimentalVMOptions -XX:CheckCPUFeatures=exact",
        );
        let line = line.unwrap();
        assert_eq!(line.cpu_check(), CpuCheck::Exact);
        assert_eq!(line.restore_words().unwrap(), Vec::<OsString>::new());
        // As a VM that does not know them.
        let line = parse("-XX:+IgnoreUnrecognizedVMOptions -XX:+CRaCCPUCountInit Main").unwrap();
        assert_eq!(line.stock_words(), words("-XX:+IgnoreUnrecognizedVMOptions Main"));
        let help = parse("-XX:CRaCEngineOptions=help").unwrap().help().unwrap();
        assert!(help.contains("keep_running=true|false") && help.contains("pids="), "{help}");
        let help = parse("-XX:CRaCEngineOptions=help=mem").unwrap().help().unwrap();
        assert!(help.starts_with("memory=") && !help.contains("pids="), "{help}");
    }

    #[test]
    fn an_engine_that_pauses_has_two_names_in_each_order() {
        for text in [
            "-XX:CRaCEngine=pause",
            "-XX:CRaCEngine=pauseengine",
            "-XX:CRaCEngine=simengine -XX:CRaCEngineOptions=pause=true",
            "-XX:CRaCEngineOptions=pause=true -XX:CRaCEngine=sim",
        ] {
            assert_eq!(parse(text).unwrap().checkpoint_options(), ["--replace", "--engine=pause"]);
        }
        let line = parse("-XX:CRaCEngine=sim -XX:CRaCEngineOptions=pause=false").unwrap();
        assert_eq!(line.checkpoint_options(), ["--replace", "--engine=sim"]);
    }

    #[test]
    fn what_criu_is_told_goes_to_the_commands_that_it_is_meant_for() {
        let options: Vec<OsString> = [
            "-XX:CRaCEngineOptions=criu_location=/opt/criu",
            "-XX:CRaCCheckpointEngineOptions=args=-v4 --tcp-close",
            "-XX:CRaCRestoreEngineOptions=args=-o log",
        ]
        .map(OsString::from)
        .into();
        let line = CommandLine::parse(&options).unwrap();
        let checkpoint = ["--criu=/opt/criu", "--criu-option=-v4", "--criu-option=--tcp-close"];
        assert_eq!(line.checkpoint_options()[1..], checkpoint);
        let restore = ["--criu=/opt/criu", "--criu-option=-o", "--criu-option=log"];
        assert_eq!(line.restore_options(), restore);
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_a_sentence() {
        for (option, part) in [
            ("-XX:CPUFeatures=generic", "VM option 'CPUFeatures=generic' cannot be had: compiled"),
            ("-XX:CheckCPUFeatures=skip", "would crash"),
            ("-XX:CRaCAllowedOpenFilePrefixes=/a\tb", "a prefix with a blank"),
            ("-XX:CRaCImageLabels=a=b\tc", "a label with a blank"),
            ("-XX:+CRaCNoSuch", "it is not known here"),
            ("-XX:CRaCEngine=vm", "the engines are native, criu, sim and pause"),
            (
                "-XX:CRaCCheckpointTo=",
                "VM option 'CRaCCheckpointTo' has no value: name a directory",
            ),
            ("-XX:-CRaCResetStartTime", "VM option 'CRaCResetStartTime' cannot be had: the start"),
            ("-XX:CRaCEngineOptions=pause=true", "engine option 'pause=true' cannot be had"),
            ("-XX:CRaCEngineOptions=no_such=1", "engine option 'no_such=1' cannot be had"),
            ("-XX:CRaCEngineOptions=criu_location=/a\tb", "a path with a blank"),
            ("-XX:-CRaCResetStartTime", "CRaCResetStartTime"),
            ("-XX:CRaCRestoreFrom", "has no value"),
        ] {
            let error = parse(option).unwrap_err().to_string();
            assert!(error.contains(part), "{option}: {error}");
        }
    }
}
