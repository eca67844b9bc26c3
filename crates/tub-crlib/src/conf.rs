//! What the JVM has configured, until it asks for a checkpoint or a restore.
//!
//! In: keys and values. Out: a [`Conf`]. Invariant: a key that is not in [`KEYS`], or a value that does not
//! fit it, changes nothing. Not here: what becomes of it.

use crate::abi::{AT_CHECKPOINT, AT_RESTORE, ConfOption, Fixed};
use crate::constraints::{Required, Told};
use std::ffi::{CStr, CString, c_char, c_uint};
use std::path::PathBuf;
use std::ptr::null;
use std::sync::OnceLock;
use tubthumping::{Ids, MemoryMode};

/// Everything that a JVM has told an engine.
#[derive(Debug)]
pub(crate) struct Conf {
    pub(crate) image: Option<PathBuf>,
    pub(crate) keep_running: bool,
    pub(crate) memory: MemoryMode,
    pub(crate) ids: Ids,
    pub(crate) command: Option<PathBuf>,
    pub(crate) words: Vec<String>,
    pub(crate) told: Told,
    pub(crate) scores: Vec<(String, f64)>,
    pub(crate) required: Required,
    /// What the restoring process gives; and in a copy, what it was given.
    pub(crate) data: Vec<u8>,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            image: None,
            keep_running: false,
            memory: MemoryMode::Auto,
            ids: Ids::Keep,
            command: None,
            words: Vec::new(),
            told: Told::default(),
            scores: Vec::new(),
            required: Required::default(),
            data: Vec::new(),
        }
    }
}

impl Conf {
    /// `false` where there is no such key, or the value is none for it.
    pub(crate) fn configure(&mut self, key: &str, value: &str) -> bool {
        let truth = match value {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        match (key, truth) {
            ("image_location", _) if !value.is_empty() => self.image = Some(value.into()),
            ("keep_running", Some(keep)) => self.keep_running = keep,
            ("direct_map", Some(true)) => self.memory = MemoryMode::Auto,
            ("direct_map", Some(false)) => self.memory = MemoryMode::Eager,
            ("pids", _) if value == "keep" => self.ids = Ids::Keep,
            ("pids", _) if value == "new" => self.ids = Ids::New,
            ("tub_location", _) if !value.is_empty() => self.command = Some(value.into()),
            ("args", _) => self.words = value.split_whitespace().map(str::to_owned).collect(),
            _ => return false,
        }
        true
    }

    /// An older number of the same name goes.
    pub(crate) fn score(&mut self, metric: &str, value: f64) -> bool {
        self.scores.retain(|(found, _)| found != metric);
        self.scores.push((metric.to_owned(), value));
        !metric.is_empty()
    }
}

/// Whether there is such a key.
pub(crate) fn is_key(key: &CStr) -> bool {
    KEYS.iter().any(|known| known.key == key)
}

struct Key {
    key: &'static CStr,
    when: c_uint,
    values: &'static CStr,
    default: &'static CStr,
    text: &'static CStr,
}

const KEYS: [Key; 6] = [
    Key {
        key: c"image_location",
        when: AT_CHECKPOINT | AT_RESTORE,
        values: c"path",
        default: c"no default",
        text: c"where the image goes, or is.",
    },
    Key {
        key: c"keep_running",
        when: AT_CHECKPOINT,
        values: c"true/false",
        default: c"false",
        text: c"let the process go on after the checkpoint.",
    },
    Key {
        key: c"direct_map",
        when: AT_RESTORE,
        values: c"true/false",
        default: c"true",
        text: c"map memory from the image, page by page as it is needed; else it is read in whole.",
    },
    Key {
        key: c"pids",
        when: AT_RESTORE,
        values: c"keep/new",
        default: c"keep",
        text: c"bring back process ids in a PID namespace, or take new ones.",
    },
    Key {
        key: c"tub_location",
        when: AT_CHECKPOINT | AT_RESTORE,
        values: c"path",
        default: c"$TUB_COMMAND, <library dir>/../bin/tub, or that of PATH",
        text: c"the command tub.",
    },
    Key {
        key: c"args",
        when: AT_CHECKPOINT | AT_RESTORE,
        values: c"string",
        default: c"\"\"",
        text: c"more options of tub checkpoint or tub restore, parted by blanks.",
    },
];

/// What the JVM sets by itself is no business of a user's.
const OF_THE_JVM: &CStr = c"image_location";

static OPTIONS: Fixed<[ConfOption; KEYS.len() + 1]> = {
    const END: ConfOption = ConfOption {
        key: null(),
        flags: 0,
        value_type: null(),
        default_value: null(),
        description: null(),
    };
    let mut options = [END; KEYS.len() + 1];
    let mut index = 0;
    while index < KEYS.len() {
        let key = &KEYS[index];
        options[index] = ConfOption {
            key: key.key.as_ptr(),
            flags: key.when,
            value_type: key.values.as_ptr(),
            default_value: key.default.as_ptr(),
            description: key.text.as_ptr(),
        };
        index += 1;
    }
    Fixed(options)
};

static NAMES: Fixed<[*const c_char; KEYS.len() + 1]> = {
    let mut names = [null(); KEYS.len() + 1];
    let mut index = 0;
    while index < KEYS.len() {
        names[index] = KEYS[index].key.as_ptr();
        index += 1;
    }
    Fixed(names)
};

/// All keys, for C; a null key ends them.
pub(crate) fn options() -> *const ConfOption {
    OPTIONS.0.as_ptr()
}

/// Their names, likewise.
pub(crate) fn names() -> *const *const c_char {
    NAMES.0.as_ptr()
}

/// The same as text, one line for each.
pub(crate) fn documentation() -> &'static CStr {
    static TEXT: OnceLock<CString> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut lines = String::new();
        for Key { key, values, default, text, .. } in KEYS.iter().filter(|k| k.key != OF_THE_JVM) {
            let [key, values, default, text] =
                [key, values, default, text].map(|t| t.to_string_lossy());
            lines.push_str(&format!("* {key}=<{values}> (default: {default}) - {text}\n"));
        }
        CString::new(lines).expect("made of texts that end at their NUL")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_documented_can_be_configured() {
        for Key { key, values, .. } in KEYS {
            let key = key.to_str().unwrap();
            let value = values.to_str().unwrap().split('/').next_back().unwrap();
            assert!(Conf::default().configure(key, value), "{key}={value}");
            let shown = documentation().to_str().unwrap().contains(&format!("* {key}=<"));
            assert_eq!(shown, key != "image_location");
        }
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut conf = Conf::default();
        for (key, value) in [
            ("no_such_key", "true"),
            ("keep_running", "maybe"),
            ("direct_map", ""),
            ("pids", "some"),
            ("image_location", ""),
        ] {
            assert!(!conf.configure(key, value), "{key}={value}");
        }
        assert!(conf.image.is_none() && !conf.keep_running);
        assert!(conf.configure("args", " --tcp=close  --timeout 3 "));
        assert_eq!(conf.words, ["--tcp=close", "--timeout", "3"]);
    }

    #[test]
    fn a_later_score_replaces_an_earlier_one() {
        let mut conf = Conf::default();
        assert!(conf.score("vm.uptime", 1.0) && conf.score("vm.uptime", 2.5));
        assert_eq!(conf.scores, [("vm.uptime".to_owned(), 2.5)]);
    }
}
