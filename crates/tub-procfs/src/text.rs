//! The little that all files share: lines, columns, numbers, device numbers, names.

use crate::error::{Error, ErrorKind, Place, Result};
use alloc::{string::String, vec::Vec};

/// The lines of `file`, each with its place; the last one may lack its newline.
pub(crate) fn lines<'a>(
    file: &'static str,
    bytes: &'a [u8],
) -> impl Iterator<Item = (Place, &'a [u8])> {
    bytes
        .split_inclusive(|&byte| byte == b'\n')
        .enumerate()
        .map(move |(index, line)| (Place { file, line: index + 1 }, without_newline(line)))
}

fn without_newline(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

/// Takes fields off the front of a line.
pub(crate) struct Fields<'a> {
    place: Place,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(place: Place, rest: &'a [u8]) -> Self {
        Self { place, rest }
    }

    pub(crate) const fn place(&self) -> Place {
        self.place
    }

    /// What no field has been taken of, without leading blanks.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest.trim_ascii_start()
    }

    /// The next field between blanks, if there is one.
    pub(crate) fn maybe(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest();
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        let (field, rest) = rest.split_at(end);
        self.rest = rest;
        (!field.is_empty()).then_some(field)
    }

    /// The next field between blanks.
    pub(crate) fn next(&mut self, field: &'static str) -> Result<&'a [u8]> {
        self.maybe().ok_or_else(|| self.place.missing(field))
    }

    /// Steps over `label`, which the next field must start with.
    pub(crate) fn label(&mut self, label: &'static str) -> Result<()> {
        match self.rest().strip_prefix(label.as_bytes()) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(self.place.missing(label)),
        }
    }

    /// The bytes up to `delimiter`, which is stepped over.
    pub(crate) fn until(&mut self, delimiter: u8, field: &'static str) -> Result<&'a [u8]> {
        let rest = self.rest();
        let end = rest.iter().position(|&byte| byte == delimiter);
        let end = end.ok_or_else(|| self.place.malformed(field, rest))?;
        self.rest = &rest[end + 1..];
        Ok(&rest[..end])
    }

    /// The next field as a number of that radix.
    pub(crate) fn number<T: Number>(&mut self, radix: u32, field: &'static str) -> Result<T> {
        let text = self.next(field)?;
        number(text, radix).ok_or_else(|| self.place.malformed(field, text))
    }
}

/// An integer that can be read from text.
pub(crate) trait Number: Sized {
    fn from_text(text: &str, radix: u32) -> Option<Self>;
}

macro_rules! number {
    ($($type:ty)*) => {$(
        impl Number for $type {
            fn from_text(text: &str, radix: u32) -> Option<Self> {
                // `from_str_radix` takes a plus sign, which no file of /proc has.
                if text.starts_with('+') { None } else { Self::from_str_radix(text, radix).ok() }
            }
        }
    )*};
}
number!(u8 u16 u32 u64 i32 i64);

/// All of `text` as a number.
pub(crate) fn number<T: Number>(text: &[u8], radix: u32) -> Option<T> {
    T::from_text(core::str::from_utf8(text).ok()?, radix)
}

/// `text` as a name.
pub(crate) fn name(place: Place, field: &'static str, text: &[u8]) -> Result<String> {
    let not_utf8 = |_| -> Error { place.error(field, ErrorKind::NotUtf8, text) };
    core::str::from_utf8(text).map(String::from).map_err(not_utf8)
}

/// `text` as a name; what is not UTF-8 of it is replaced.
pub(crate) fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// Replaces each occurrence of `escape` by `byte`.
pub(crate) fn unescape(text: &[u8], escape: &[u8], byte: u8) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        match rest.strip_prefix(escape) {
            Some(after) => {
                plain.push(byte);
                rest = after;
            }
            None => {
                plain.push(first);
                rest = after;
            }
        }
    }
    plain
}

/// The device number as `stat(2)` has it.
///
/// ABI: glibc `sys/sysmacros.h`, `gnu_dev_makedev`; the kernel's `new_encode_dev` agrees for the
/// 12 bits of major and 20 bits of minor numbers that it has.
pub(crate) const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (major & 0xffff_f000) << 32
        | (major & 0x0000_0fff) << 8
        | (minor & 0xffff_ff00) << 12
        | (minor & 0x0000_00ff)
}

/// The device number as `stat(2)` has it, from the kernel's own `dev_t`.
///
/// KERNEL(since 2.6): `include/linux/kdev_t.h`: 20 bits of minor number below the major one.
/// `fdinfo` of epoll and inotify prints this form, `maps` does not.
pub(crate) const fn from_kernel_dev(dev: u32) -> u64 {
    makedev(dev >> 20, dev & 0x000f_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_no_sign_but_minus() {
        assert_eq!(number::<u32>(b"+1", 10), None);
        assert_eq!(number::<u32>(b"-1", 10), None);
        assert_eq!(number::<i32>(b"-1", 10), Some(-1));
        assert_eq!(number::<u8>(b"", 10), None);
        assert_eq!(number::<u8>(b"100", 16), None);
    }

    #[test]
    fn device_numbers_are_those_of_stat() {
        assert_eq!(makedev(0xfe, 0), 0xfe00);
        assert_eq!(makedev(8, 0x101), 0x0010_0801);
        assert_eq!(from_kernel_dev(0x0fe0_0000), 0xfe00);
        assert_eq!(from_kernel_dev(0x10), 0x10);
    }
}
