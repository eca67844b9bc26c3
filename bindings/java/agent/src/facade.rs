//! Offers `org.crac`, by which frameworks know the API, to an application that comes without it.
//!
//! In: the class path. Out: the facade's jar at the end of it.
//! Invariant: an application's own copy is found first: it stands before ours, or, where it lies in a jar within
//! the application's jar, whose loader asks its parent first, ours is not offered at all.
//! Not here: the classes (`../facade`). `-Dtubthumping.facade=false` declines.

use crate::jvm::{Argument, Env, Jvm, JvmError};
use crate::shim;
use std::ffi::CStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What names of entries have in them that are a copy of the facade: its classes, or a jar of it.
const OWN_COPY: [&[u8]; 3] = [b"org/crac/", b"/crac-", b"org.crac"];

/// Larger lists of a jar's entries are not read.
const DIRECTORY_MAX: u64 = 64 << 20;

/// Offers it. Before the application starts, and not by the property `java.class.path`, which the archives of
/// classes and the application look at.
pub(crate) fn offer(jvm: &Jvm, env: Env<'_>) -> Result<(), JvmError> {
    if property(env, c"tubthumping.facade", c"true")? == "false" {
        return Ok(());
    }
    let class_path = property(env, c"java.class.path", c"")?;
    // With several entries an own copy is one of them, as a rule.
    if !class_path.contains(':') && may_have_its_own(Path::new(&class_path)) {
        return Ok(());
    }
    let jar = shim::facade_path().map_err(|error| JvmError::new(&error))?;
    // A system class loader of the application's own that takes no jars is no failure of ours.
    let _ = jvm.add_to_system_class_path(&jar);
    Ok(())
}

fn property(env: Env<'_>, name: &CStr, otherwise: &CStr) -> Result<String, JvmError> {
    let (name, otherwise) = (env.string(name)?, env.string(otherwise)?);
    let value = env.call_static(
        &env.class(c"java/lang/System")?,
        c"getProperty",
        c"(Ljava/lang/String;Ljava/lang/String;)Ljava/lang/String;",
        &[Argument::Object(&name), Argument::Object(&otherwise)],
    )?;
    Ok(env.text(&value))
}

/// Whether a jar holds a copy of the facade. What is no jar holds none; what is not understood may.
fn may_have_its_own(jar: &Path) -> bool {
    if !jar.is_file() {
        return false;
    }
    list_of_entries(jar).is_none_or(|list| {
        OWN_COPY.iter().any(|name| list.windows(name.len()).any(|part| part == *name))
    })
}

/// The central directory of a jar. PKWARE's APPNOTE 6.3.10, sections 4.3.12 and 4.3.16.
fn list_of_entries(jar: &Path) -> Option<Vec<u8>> {
    const MARK: &[u8] = b"PK\x05\x06";
    let file = File::open(jar).ok()?;
    let length = file.metadata().ok()?.len();
    // The end is 22 bytes long and followed by a comment of 65,535 bytes at most.
    let start = length.saturating_sub(22 + 65_535);
    let mut end = vec![0; usize::try_from(length - start).ok()?];
    file.read_exact_at(&mut end, start).ok()?;
    let at = end.windows(4).rposition(|part| part == MARK)?;
    let u32_at = |at: usize| Some(u64::from(u32::from_le_bytes(*end.get(at..)?.first_chunk()?)));
    let (size, offset) = (u32_at(at + 12)?, u32_at(at + 16)?);
    let is_there = size <= DIRECTORY_MAX && offset.checked_add(size)? <= length;
    let mut list = vec![0; usize::try_from(is_there.then_some(size)?).ok()?];
    file.read_exact_at(&mut list, offset).ok()?;
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_in_the_applications_jar_is_seen() {
        let file = |name: &str, bytes: &[u8]| {
            let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
            std::fs::write(&path, bytes).unwrap();
            path
        };
        // The facade's own jar, the shim's, and something that is no jar.
        let facade = include_bytes!(concat!(env!("OUT_DIR"), "/tub-facade.jar"));
        for (bytes, has_it) in
            [(&facade[..], true), (shim::JAR, false), (b"no jar".as_slice(), true)]
        {
            let path = file("tub-own-copy", bytes);
            assert_eq!(may_have_its_own(&path), has_it);
            std::fs::remove_file(path).unwrap();
        }
        assert!(!may_have_its_own(Path::new("/tmp")));
        assert!(!may_have_its_own(Path::new("/no/such/file")));
    }
}
