//! CRaC's options among those of `java`.
//!
//! In: words of a command line. Out: which of them are CRaC's, and what is left for the stock JVM.
//! Invariant: nothing is run. What cannot be had is an error with a sentence.
//! Not here: what is done with it (`java`).
//!
//! JVM(since 9): `@file` and `JDK_JAVA_OPTIONS` hold words parted by blanks, with quotes, and in files
//! comments from `#` on (the `java` man page).

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
const REFUSED: [(&str, &str); 14] = [
    ("CPUFeatures", "the features that compiled code uses are the VM's own choice"),
    ("CheckCPUFeatures", "an image is restored where the processor has what the first one had"),
    ("ShowCPUFeatures", "the VM's numbering of processor features is its own"),
    ("CRaCCPUCountInit", "the number of processors is read once by the VM"),
    ("CRaCHeapErgonomics", "the size of the heap is decided at the start of the VM"),
    ("CRaCMaxHeapSizeBeforeCheckpoint", "the size of the heap is decided at the start of the VM"),
    ("CRaCHeapDumpOnCheckpointException", "use `jcmd PID GC.heap_dump`"),
    (
        "CRaCPauseOnCheckpointError",
        "the process goes on after a refusal, and can be looked at then",
    ),
    ("CRaCSkipCheckpoint", "use `tub prepare` and `tub resume`"),
    ("CRaCImageLabels", "labels are not kept in an image"),
    ("CRaCRequiredImageLabels", "labels are not kept in an image"),
    ("CRaCAllowedOpenFilePrefixes", "use -Djdk.crac.resource-policies=FILE"),
    ("CRaCResetStartTime", "the start time is always that of the restore"),
    ("CRaCIgnoredFileDescriptors", "all inherited descriptors above 2 are closed"),
];

/// A word that is not understood or cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OptionError(String);

impl OptionError {
    /// In the words given.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

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
    for_checkpoint: Vec<String>,
    for_restore: Vec<String>,
    /// Without CRaC's own.
    stock: Vec<OsString>,
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
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let text = word.to_string_lossy();
            if let Some(option) = crac_option(&text) {
                line.is_crac = true;
                line.add(option, word)?;
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
            } else if text.starts_with("-D") {
                line.properties.push(word.clone());
            } else if text.starts_with("-X") {
                line.unsettable.push(text.into_owned());
            } else if !text.starts_with('-') {
                line.program.push(word.clone());
                line.program.extend(words.by_ref().cloned());
                line.stock.extend(line.program[1..].iter().cloned());
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
        match name {
            "CRaCCheckpointTo" => self.checkpoint_to = Some(value()?),
            "CRaCRestoreFrom" => self.restore_from = Some(value()?),
            "CRaCIgnoreRestoreIfUnavailable" => self.may_start_instead = is_on,
            "CRaCEngine" | "CREngine" => self.engine(&value()?.to_string_lossy())?,
            "CRaCEngineOptions" | "CRaCCheckpointEngineOptions" | "CRaCRestoreEngineOptions" => {
                for option in value()?.to_string_lossy().split(',') {
                    self.engine_option(option)?;
                }
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
            _ => {
                let why = REFUSED.iter().find(|(refused, _)| *refused == name);
                let why = why.map_or("it is not known here", |(_, why)| why);
                return Err(OptionError(format!("VM option '{name}' cannot be had: {why}")));
            }
        }
        Ok(())
    }

    fn engine(&mut self, name: &str) -> Result<(), OptionError> {
        match name {
            // Those of the CRaC JDKs, whose work the native one does.
            "native" | "criuengine" | "warp" | "crexec" => Ok(()),
            "criu" => {
                self.for_checkpoint.extend(["--engine".to_owned(), "criu".to_owned()]);
                Ok(())
            }
            _ => Err(OptionError(format!(
                "VM option 'CRaCEngine={name}' cannot be had: the engines are native and criu"
            ))),
        }
    }

    fn engine_option(&mut self, option: &str) -> Result<(), OptionError> {
        let (key, value) = option.split_once('=').unwrap_or((option, "true"));
        match (key, value) {
            ("keep_running", "true") => self.for_checkpoint.push("--leave-running".into()),
            ("keep_running" | "direct_map" | "print_command", _) => {}
            ("pids", "keep" | "new") => {
                self.for_restore.extend(["--pids".to_owned(), value.to_owned()]);
            }
            ("memory", "auto" | "lazy" | "eager") => {
                self.for_restore.extend(["--memory".to_owned(), value.to_owned()]);
            }
            _ => {
                return Err(OptionError(format!(
                    "engine option '{option}' cannot be had: there are keep_running=true|false, \
                     pids=keep|new and memory=auto|lazy|eager"
                )));
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

    /// Options of `tub checkpoint`.
    pub(crate) fn checkpoint_options(&self) -> Vec<String> {
        // The image directory is overwritten, as a CRaC JDK does it.
        let mut options = vec!["--replace".to_owned()];
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

/// What follows `-XX:` of an option of CRaC's.
fn crac_option(word: &str) -> Option<&str> {
    let option = word.strip_prefix("-XX:")?;
    let name = option.trim_start_matches(['+', '-']);
    let is_crac = ["CRaC", "CREngine", "CPUFeatures", "CheckCPUFeatures", "ShowCPUFeatures"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    is_crac.then_some(option)
}

/// The words with those of a variable before them, where it has options of CRaC's; whether it has.
pub(crate) fn with_variable(
    words: &[OsString],
    variable: Option<OsString>,
) -> (Vec<OsString>, bool) {
    let text = variable.unwrap_or_default().to_string_lossy().into_owned();
    if !text.contains("-XX:") || !text.split_whitespace().any(|word| crac_option(word).is_some()) {
        return (words.to_vec(), false);
    }
    let more = split(&text).into_iter().map(OsString::from);
    (more.chain(words.iter().cloned()).collect(), true)
}

/// The words with `@file` replaced by what the file says, where that has options of CRaC's.
pub(crate) fn expand(words: Vec<OsString>) -> Result<Vec<OsString>, OptionError> {
    let mut expanded = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        let file = text.strip_prefix('@').filter(|file| !file.starts_with('@'));
        let content = match file {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| OptionError(format!("@{file}: cannot read: {error}")))?,
            None => String::new(),
        };
        let inside = split(&content);
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

/// Words parted by blanks, within quotes of either kind as they are, with `\` before a character
/// that stands for itself there; `#` starts a comment.
fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', Some(_)) => word.get_or_insert_default().extend(characters.next()),
            (_, Some(open)) if character == open => quote = None,
            (_, Some(_)) => word.get_or_insert_default().push(character),
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            ('#', None) if word.is_none() => {
                characters.by_ref().find(|&character| character == '\n');
            }
            (_, None) if character.is_whitespace() => words.extend(word.take()),
            (_, None) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// The path that a pattern stands for, in the process `pid`.
pub(crate) fn place(pattern: &OsStr, pid: u32) -> Result<String, OptionError> {
    let pattern = pattern.to_string_lossy();
    let mut path = String::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            path.push(character);
            continue;
        }
        match characters.next() {
            Some('%') => path.push('%'),
            // JVM: os.arch.
            Some('a') => {
                path.push_str(if cfg!(target_arch = "x86_64") { "amd64" } else { "aarch64" })
            }
            Some('p') => path.push_str(&pid.to_string()),
            Some('c') => {
                let count = std::thread::available_parallelism().map_or(1, usize::from);
                path.push_str(&count.to_string());
            }
            other => {
                let other = other.map(String::from).unwrap_or_default();
                return Err(OptionError(format!(
                    "CRaCCheckpointTo={pattern}: %{other} is not known at the start; there are \
                     %% %a %c %p"
                )));
            }
        }
    }
    Ok(path)
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
    fn a_restore_takes_properties_and_a_main_class() {
        let line = parse("-XX:CRaCRestoreFrom=cr -cp x -Da=b Main one").unwrap();
        assert_eq!(line.restore_words().unwrap(), words("-Da=b Main one"));
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
    fn what_cannot_be_had_is_refused_with_a_sentence() {
        for (option, part) in [
            ("-XX:CPUFeatures=generic", "VM option 'CPUFeatures' cannot be had: the features"),
            ("-XX:CRaCImageLabels=a=b", "labels are not kept"),
            ("-XX:+CRaCNoSuch", "it is not known here"),
            ("-XX:CRaCEngine=simengine", "the engines are native and criu"),
            ("-XX:CRaCEngineOptions=args=-v", "engine option 'args=-v' cannot be had"),
            ("-XX:-CRaCResetStartTime", "CRaCResetStartTime"),
            ("-XX:CRaCRestoreFrom", "has no value"),
        ] {
            let error = parse(option).unwrap_err().to_string();
            assert!(error.contains(part), "{option}: {error}");
        }
    }

    #[test]
    fn files_and_the_variable_are_read_as_java_reads_them() {
        assert_eq!(split("a \"b c\" # no\n'd\\'e' f#g\t\"\""), ["a", "b c", "d'e", "f#g", ""]);
        let variable = Some(OsString::from("-XX:CRaCCheckpointTo='my cr' -Da=b"));
        let (all, used) = with_variable(&words("Main"), variable);
        assert!(used);
        assert_eq!(all, ["-XX:CRaCCheckpointTo=my cr", "-Da=b", "Main"]);
        assert!(!with_variable(&words("Main"), Some("-Da=b".into())).1);
        assert_eq!(expand(words("Main @nothing")).unwrap(), words("Main @nothing"));
        assert!(expand(words("@/no/such/file Main")).is_err());
    }

    #[test]
    fn placeholders_that_are_known_at_the_start_are_filled_in() {
        assert_eq!(place(OsStr::new("cr-%p-%%"), 42).unwrap(), "cr-42-%");
        let error = place(OsStr::new("cr-%t"), 42).unwrap_err().to_string();
        assert!(error.contains("%t is not known at the start"), "{error}");
    }
}
