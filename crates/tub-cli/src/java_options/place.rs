//! Placeholders in `CRaCCheckpointTo`: what is known at the start, and what at the checkpoint.
//!
//! In: a pattern, facts. Out: a path, or a pattern in which only the checkpoint's own are left.
//! Invariant: pure. Not here: where the facts are from.

use super::OptionError;
use std::fmt::Write;

/// What is known when the JVM starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) pid: u32,
    pub(crate) processors: usize,
    /// Seconds since 1970.
    pub(crate) boot: u64,
    /// `-Xmx`, in bytes.
    pub(crate) max_heap: Option<u64>,
}

/// What is known when an image is taken.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// When the process was restored, or started if it never was.
    pub(crate) restored: u64,
    /// 1 for the first image.
    pub(crate) generation: u64,
    /// Random.
    pub(crate) uuid: [u8; 16],
}

/// Fills in what is known at the start; whether anything is left for [`at_checkpoint`], for which a
/// percent sign stays doubled.
pub(crate) fn at_start(pattern: &str, start: Start) -> Result<(String, bool), OptionError> {
    let mut is_whole = true;
    let filled = fill(pattern, |letter, format| {
        Ok(Some(match letter {
            // JVM: os.arch.
            'a' => (if cfg!(target_arch = "x86_64") { "amd64" } else { "aarch64" }).to_owned(),
            'p' => format.number(start.pid.into()),
            'c' => format.number(start.processors as u64),
            'b' => basic(start.boot),
            'B' => format.number(start.boot),
            'm' => {
                let bytes = start.max_heap.ok_or_else(|| unknown(pattern, "%m needs -Xmx"))?;
                format.size(bytes)
            }
            'f' => {
                let why = "%f is the VM's own numbering of processor features";
                return Err(unknown(pattern, why));
            }
            't' | 'T' | 'r' | 'R' | 'g' | 'u' => {
                is_whole = false;
                return Ok(None);
            }
            _ => {
                let why = format!(
                    "%{letter} is not known; there are %% %a %b %B %c %g %m %p %r %R %t %T %u"
                );
                return Err(unknown(pattern, &why));
            }
        }))
    })?;
    Ok(if is_whole { (filled.replace("%%", "%"), false) } else { (filled, true) })
}

/// Fills in what is known when a process is restored: what was at its start is that of its start. What is left is for
/// [`at_checkpoint`], whatever there is.
pub(crate) fn at_restore(pattern: &str, processors: usize) -> Result<String, OptionError> {
    fill(pattern, |letter, format| {
        Ok(match letter {
            'a' | 'c' => {
                let start = Start { pid: 0, processors, boot: 0, max_heap: None };
                let pattern = format!("%{}{letter}", format.0);
                Some(at_start(&pattern, start)?.0)
            }
            't' | 'T' | 'r' | 'R' | 'g' | 'u' => None,
            _ => {
                let why = format!(
                    "%{letter} is not known at a restore; there are %% %a %c %g %r %R %t %T %u"
                );
                return Err(unknown(pattern, &why));
            }
        })
    })
}

/// Fills in the rest.
pub(crate) fn at_checkpoint(pattern: &str, moment: &Moment) -> Result<String, OptionError> {
    let filled = fill(pattern, |letter, format| {
        Ok(Some(match letter {
            't' => basic(moment.now),
            'T' => format.number(moment.now),
            'r' => basic(moment.restored),
            'R' => format.number(moment.restored),
            'g' => format.number(moment.generation),
            'u' => uuid(moment.uuid),
            _ => return Err(unknown(pattern, &format!("%{letter} is not known"))),
        }))
    })?;
    Ok(filled.replace("%%", "%"))
}

fn unknown(pattern: &str, why: &str) -> OptionError {
    OptionError::new(format!("CRaCCheckpointTo={pattern}: {why}"))
}

/// What stands between the percent sign and the letter: a width, after a zero for padding.
#[derive(Clone, Copy)]
struct Format<'a>(&'a str);

impl Format<'_> {
    fn number(self, number: u64) -> String {
        let width = self.0.parse().unwrap_or(0);
        if self.0.starts_with('0') {
            format!("{number:0width$}")
        } else {
            format!("{number:width$}")
        }
    }

    /// Bytes where there is a width, else in the largest unit that divides them.
    fn size(self, bytes: u64) -> String {
        let units = [(30, "G"), (20, "M"), (10, "K")];
        let fits = units.iter().find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift);
        match fits {
            Some((shift, unit)) if self.0.is_empty() => format!("{}{unit}", bytes >> shift),
            _ => self.number(bytes),
        }
    }
}

/// Replaces each placeholder, but for those that give none, which stay.
fn fill(
    pattern: &str,
    mut value: impl FnMut(char, Format<'_>) -> Result<Option<String>, OptionError>,
) -> Result<String, OptionError> {
    let mut path = String::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('%') {
        path.push_str(before);
        let width = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let letter = after[width..].chars().next();
        let letter = letter.ok_or_else(|| unknown(pattern, "ends within a placeholder"))?;
        rest = &after[width + letter.len_utf8()..];
        let replaced = if letter == '%' { None } else { value(letter, Format(&after[..width]))? };
        match replaced {
            Some(text) => path.push_str(&text),
            None => {
                let _ = write!(path, "%{}{letter}", &after[..width]);
            }
        }
    }
    path.push_str(rest);
    Ok(path)
}

/// ISO 8601 in its basic form, in UTC: `20260318T134512Z`.
fn basic(seconds: u64) -> String {
    let text = crate::inspect::utc(seconds);
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    format!("{}T{}Z", &digits[..8], &digits[8..])
}

/// RFC 9562, version 4.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Start =
        Start { pid: 42, processors: 2, boot: 951_782_399, max_heap: Some(512 << 20) };

    #[test]
    fn what_is_known_at_the_start_is_filled_in_then() {
        let place = |pattern| at_start(pattern, START).unwrap();
        assert_eq!(place("cr-%p-%05c-%%-%m-%08m"), ("cr-42-00002-%-512M-536870912".into(), false));
        assert_eq!(place("%b %B %3p"), ("20000228T235959Z 951782399  42".into(), false));
        assert_eq!(place("%p-%%-%05g-%t"), ("42-%%-%05g-%t".into(), true));
        for (pattern, part) in [
            ("cr-%x", "%x is not known"),
            ("%f", "own numbering"),
            ("cr%", "ends within"),
            ("%5", "ends within"),
        ] {
            let error = at_start(pattern, START).unwrap_err().to_string();
            assert!(error.contains(part), "{pattern}: {error}");
        }
        assert_eq!(at_restore("%a-%03c-%%-%g", 2).unwrap(), "amd64-002-%%-%g");
        assert!(at_restore("cr-%p", 2).unwrap_err().to_string().contains("%p is not known at a"));
        let no_heap = Start { max_heap: None, ..START };
        assert!(at_start("%m", no_heap).unwrap_err().to_string().contains("-Xmx"));
    }

    #[test]
    fn the_rest_is_filled_in_at_the_checkpoint() {
        let moment = Moment { now: 86_400, restored: 60, generation: 3, uuid: [0xff; 16] };
        let place = |pattern| at_checkpoint(pattern, &moment).unwrap();
        assert_eq!(place("42-%%-%05g-%t-%R"), "42-%-00003-19700102T000000Z-60");
        assert_eq!(place("%u"), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(place("%r/%T"), "19700101T000100Z/86400");
    }
}
