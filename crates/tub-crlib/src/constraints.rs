//! What an image says of itself, and what is required of it.
//!
//! In: labels, bitmaps and data by name. Out: the labels of our image, and which requirements fail.
//! Invariant: what was set is found again; a requirement that an image does not speak of fails.
//! Not here: where the image is.
//!
//! Our images keep labels, which are text: a bitmap is the label `bitmap:NAME`, data are `data:NAME`, both
//! in hexadecimal digits.

const BITMAP: &str = "bitmap:";
const DATA: &str = "data:";

/// Names and values as an image keeps them.
pub(crate) type Labels = Vec<(String, String)>;

/// How a bitmap has to compare with one that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// The image's is the same.
    Equals,
    /// The image's has no bit that the given one has not.
    Subset,
    /// The image's has every bit that the given one has.
    Superset,
}

impl Comparison {
    /// JVM: an enum in C, counted from 0.
    pub(crate) fn of(number: i32) -> Option<Self> {
        [Self::Equals, Self::Subset, Self::Superset].get(usize::try_from(number).ok()?).copied()
    }

    /// The shorter one goes on with zeros.
    fn holds(self, image: &[u8], given: &[u8]) -> bool {
        let byte = |bits: &[u8], index: usize| bits.get(index).copied().unwrap_or(0);
        (0..image.len().max(given.len())).all(|index| {
            let (image, given) = (byte(image, index), byte(given, index));
            match self {
                Self::Equals => image == given,
                Self::Subset => image & !given == 0,
                Self::Superset => given & !image == 0,
            }
        })
    }
}

/// What an image is going to say of itself.
#[derive(Debug, Default)]
pub(crate) struct Told {
    labels: Labels,
}

impl Told {
    pub(crate) fn labels(&self) -> &Labels {
        &self.labels
    }

    /// `false` where the name is taken, or is none.
    pub(crate) fn label(&mut self, name: &str, value: &str) -> bool {
        let ours = name.starts_with(BITMAP) || name.starts_with(DATA);
        !ours && !name.is_empty() && self.add(name.to_owned(), value.to_owned())
    }

    /// The same for a bitmap.
    pub(crate) fn bitmap(&mut self, name: &str, bits: &[u8]) -> bool {
        !name.is_empty() && self.add(format!("{BITMAP}{name}"), digits(bits))
    }

    /// Data take the place of earlier ones; where there are none, the earlier ones go.
    pub(crate) fn data(&mut self, name: &str, data: &[u8]) -> bool {
        let label = format!("{DATA}{name}");
        self.labels.retain(|(found, _)| *found != label);
        !name.is_empty() && (data.is_empty() || self.add(label, digits(data)))
    }

    fn add(&mut self, name: String, value: String) -> bool {
        let free = self.labels.iter().all(|(found, _)| *found != name);
        if free {
            self.labels.push((name, value));
        }
        free
    }
}

/// What is required of an image, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Required {
    labels: Labels,
    bitmaps: Vec<(String, Vec<u8>, Comparison)>,
    failed: Vec<Failed>,
}

/// A requirement that an image does not meet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// Of the label or bitmap.
    pub(crate) name: String,
    /// What is wrong with it, for people.
    pub(crate) why: String,
    /// The image's bitmap, if it is one and there is one.
    pub(crate) bitmap: Option<Vec<u8>>,
}

impl Required {
    pub(crate) fn label(&mut self, name: &str, value: &str) {
        self.labels.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn bitmap(&mut self, name: &str, bits: &[u8], comparison: Comparison) {
        self.bitmaps.push((name.to_owned(), bits.to_owned(), comparison));
    }

    /// Looks which requirements fail, and remembers them.
    pub(crate) fn judge(&mut self, image: &Labels) -> &[Failed] {
        self.failed.clear();
        for (name, required) in &self.labels {
            let found = find(image, name);
            if found != Some(required) {
                let found = found.unwrap_or("not there");
                let why = format!("label {name} is {found}, {required} is required");
                self.failed.push(Failed { name: name.clone(), why, bitmap: None });
            }
        }
        for (name, required, comparison) in &self.bitmaps {
            let found = find(image, &format!("{BITMAP}{name}")).and_then(bytes);
            let holds = found.as_ref().is_some_and(|found| comparison.holds(found, required));
            if !holds {
                let shown = found.as_deref().map_or_else(|| "not there".to_owned(), digits);
                let why = format!(
                    "bitmap {name} is {shown}, which is no {comparison:?} of {}",
                    digits(required)
                );
                self.failed.push(Failed { name: name.clone(), why, bitmap: found });
            }
        }
        &self.failed
    }

    /// What failed at the last restore, by name.
    pub(crate) fn failed(&self, name: &str) -> Option<&Failed> {
        self.failed.iter().find(|failed| failed.name == name)
    }
}

fn find<'a>(labels: &'a Labels, name: &str) -> Option<&'a str> {
    labels.iter().rfind(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// Data that an image keeps under a name.
pub(crate) fn data(labels: &Labels, name: &str) -> Option<Vec<u8>> {
    find(labels, &format!("{DATA}{name}")).and_then(bytes)
}

/// The names of all data that an image keeps.
pub(crate) fn data_names(labels: &Labels) -> impl Iterator<Item = &str> {
    labels.iter().filter_map(|(name, _)| name.strip_prefix(DATA))
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_once() {
        let mut told = Told::default();
        assert!(told.label("cpu.arch", "amd64"));
        assert!(!told.label("cpu.arch", "aarch64"));
        assert!(told.bitmap("cpu.arch", &[1]), "a bitmap is no label");
        assert!(!told.bitmap("cpu.arch", &[1]));
        assert!(!told.label("bitmap:x", "00"), "it would be taken for a bitmap");
        assert!(!told.label("", "x"));
        let labels = [("cpu.arch", "amd64"), ("bitmap:cpu.arch", "01")];
        assert_eq!(*told.labels(), labels.map(|(name, value)| (name.into(), value.into())));
    }

    #[test]
    fn data_are_replaced_and_cleared() {
        let mut told = Told::default();
        assert!(told.data("blob", b"\0a") && told.data("blob", b"\xffb"));
        assert_eq!(data(told.labels(), "blob"), Some(b"\xffb".to_vec()));
        assert!(told.data("blob", b""));
        assert_eq!(data(told.labels(), "blob"), None);
        assert!(!told.data("", b"x"));
    }

    #[test]
    fn bitmaps_compare_as_if_they_were_equally_long() {
        use Comparison::{Equals, Subset, Superset};
        let cases: [(&[u8], &[u8], [bool; 3]); 5] = [
            (&[0b101], &[0b101, 0], [true, true, true]),
            (&[0b001], &[0b101], [false, true, false]),
            (&[0b101, 1], &[0b101], [false, false, true]),
            (&[0b110], &[0b011], [false, false, false]),
            (&[], &[], [true, true, true]),
        ];
        for (image, given, expected) in cases {
            let held = [Equals, Subset, Superset].map(|c| c.holds(image, given));
            assert_eq!(held, expected, "{image:?} {given:?}");
        }
        assert_eq!([0, 1, 2, 3, -1].map(Comparison::of)[3..], [None, None]);
    }

    #[test]
    fn every_requirement_that_fails_is_told() {
        let mut told = Told::default();
        told.label("cpu.arch", "amd64");
        told.bitmap("cpu.features", &[0b11]);
        let mut required = Required::default();
        required.label("cpu.arch", "amd64");
        required.bitmap("cpu.features", &[0b111], Comparison::Subset);
        assert_eq!(required.judge(told.labels()), []);
        required.bitmap("cpu.features", &[0b01], Comparison::Subset);
        required.label("version", "2");
        required.bitmap("other", &[1], Comparison::Equals);
        let names: Vec<_> = required.judge(told.labels()).iter().map(|f| f.name.clone()).collect();
        assert_eq!(names, ["version", "cpu.features", "other"]);
        assert_eq!(required.failed("cpu.features").unwrap().bitmap, Some(vec![0b11]));
        assert!(required.failed("cpu.arch").is_none());
        assert!(required.failed("other").unwrap().bitmap.is_none());
    }

    #[test]
    fn damaged_digits_are_no_bytes() {
        assert_eq!(bytes("00ff"), Some(vec![0, 255]));
        assert_eq!([bytes("0"), bytes("0g"), bytes("é")], [None, None, None]);
    }
}
