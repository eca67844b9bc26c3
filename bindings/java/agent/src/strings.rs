//! Lists of strings as one array of bytes: what crosses the border to Java (`Strings.java`).
//!
//! In: strings, or bytes. Out: bytes, or strings. Each string is ended by NUL.

/// Strings as one array of bytes.
pub(crate) fn pack<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> Vec<u8> {
    let mut packed = Vec::new();
    for string in strings {
        // A NUL inside would end the string early.
        packed.extend(string.as_ref().iter().map(|&byte| if byte == 0 { b' ' } else { byte }));
        packed.push(0);
    }
    packed
}

/// The strings in an array of bytes; Java's side makes them from its own strings.
pub(crate) fn unpack(packed: &[u8]) -> Vec<String> {
    packed
        .split_inclusive(|&byte| byte == 0)
        .map(|s| String::from_utf8_lossy(s.strip_suffix(&[0]).unwrap_or(s)).into_owned())
        .collect()
}
