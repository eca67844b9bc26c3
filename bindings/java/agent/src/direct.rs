//! Gives the boot loader the shim's classes one by one, with no jar on its path.
//!
//! In: the jar that the agent carries, its entries not compressed. Out: all of its classes, defined.
//! Invariant: a class comes after those that it extends and implements, which the JVM looks for at once.
//! Not here: the jar on the boot class path (`start`), which takes no time where a class is not asked for.
//!
//! JVM(since 17): an archive of an application's classes (`-XX:SharedArchiveFile`) names the boot class path that
//! it was made with, and is not used with a longer one. Nor can an archive be made of a JVM whose path an
//! agent has made longer: the process that writes it has no agent. So where the command line has to do with
//! archives the path stays as it is.

use crate::classfile::{self, Relations};
use crate::jvm::{Env, JvmError};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;

/// What options for archives have in their names.
const ARCHIVES: [&str; 5] =
    ["SharedArchiveFile", "ArchiveClassesAtExit", "XX:AOT", "SharedClassListFile", "Xshare:dump"];

/// Words that name a file with more options in it.
const FILES: [&str; 3] = ["@", "-XX:Flags=", "-XX:VMOptionsFile="];

/// Variables whose options a JVM takes.
const VARIABLES: [&str; 4] =
    ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "JDK_AOT_VM_OPTIONS"];

/// Whether this JVM may have to do with an archive of an application's classes. Where options stand in
/// files, which are not read here, it may: then the shim's classes come a few milliseconds dearer.
pub(crate) fn may_use_an_archive() -> bool {
    let line = fs::read("/proc/self/cmdline").unwrap_or_default();
    let words = line.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    let variables = VARIABLES.iter().filter_map(|name| std::env::var(name).ok());
    let of_variables: Vec<String> = variables
        .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    words.map(std::borrow::Cow::into_owned).chain(of_variables).any(|word| tells_of_archive(&word))
}

fn tells_of_archive(word: &str) -> bool {
    FILES.iter().any(|file| word.starts_with(file))
        || word.starts_with('-') && ARCHIVES.iter().any(|option| word.contains(option))
}

/// Defines them all.
pub(crate) fn define_all(env: Env<'_>, jar: &[u8]) -> Result<(), JvmError> {
    let failed = |name: &str, why: &str| JvmError::new(&format!("shim: {name}: {why}"));
    let mut waiting = BTreeMap::new();
    for (name, bytes) in stored_classes(jar).ok_or_else(|| failed("jar", "not understood"))? {
        let relations =
            classfile::relations(bytes).map_err(|error| failed(name, &error.to_string()))?;
        waiting.insert(name.to_owned(), (relations, bytes));
    }
    while let Some(name) = waiting.keys().next().cloned() {
        define(env, &mut waiting, &name)?;
    }
    Ok(())
}

type Waiting<'a> = BTreeMap<String, (Relations, &'a [u8])>;

/// Defines a class, after those that it needs. It no longer waits then, so that a circle has an end.
fn define(env: Env<'_>, waiting: &mut Waiting<'_>, name: &str) -> Result<(), JvmError> {
    let Some((relations, bytes)) = waiting.remove(name) else { return Ok(()) };
    for parent in &relations.parents {
        define(env, waiting, parent)?;
    }
    let name = CString::new(name).map_err(|_| JvmError::new("shim: a name with a NUL"))?;
    env.define_in_boot_loader(&name, bytes)
}

/// The classes of a jar whose entries are stored as they are, with their names; `None` for any other jar.
///
/// PKWARE's APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
fn stored_classes(jar: &[u8]) -> Option<Vec<(&str, &[u8])>> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(*jar.get(at..)?.first_chunk()?).into());
    let u32_at =
        |at: usize| usize::try_from(u32::from_le_bytes(*jar.get(at..)?.first_chunk()?)).ok();
    let end = jar.len().checked_sub(22)?;
    let is_signed = |at: usize, mark: &[u8; 4]| jar.get(at..)?.first_chunk().map(|it| it == mark);
    is_signed(end, b"PK\x05\x06")?.then_some(())?;
    let (count, mut at): (usize, usize) = (u16_at(end + 10)?, u32_at(end + 16)?);
    let mut classes = Vec::new();
    for _ in 0..count {
        is_signed(at, b"PK\x01\x02")?.then_some(())?;
        let (method, size): (usize, usize) = (u16_at(at + 10)?, u32_at(at + 24)?);
        let (name, extra, comment): (usize, usize, usize) =
            (u16_at(at + 28)?, u16_at(at + 30)?, u16_at(at + 32)?);
        let local = u32_at(at + 42)?;
        let path = std::str::from_utf8(jar.get(at + 46..)?.get(..name)?).ok()?;
        at += 46 + name + extra + comment;
        let Some(class) = path.strip_suffix(".class") else { continue };
        (method == 0).then_some(())?;
        let (name, extra): (usize, usize) = (u16_at(local + 26)?, u16_at(local + 28)?);
        classes.push((class, jar.get(local + 30 + name + extra..)?.get(..size)?));
    }
    Some(classes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::JAR;

    #[test]
    fn every_class_of_the_shim_is_found_with_what_it_extends() {
        let classes = stored_classes(JAR).unwrap();
        assert!(classes.len() > 50, "{}", classes.len());
        let of = |wanted: &str| classes.iter().find(|(name, _)| *name == wanted).unwrap().1;
        let relations = classfile::relations(of("jdk/crac/impl/CheckpointOpenFileException"));
        assert_eq!(relations.unwrap().parents, ["jdk/crac/impl/CheckpointOpenResourceException"]);
        let relations = classfile::relations(of("jdk/crac/Context")).unwrap();
        assert_eq!(relations.parents, ["java/lang/Object", "jdk/crac/Resource"]);
        assert!(stored_classes(&JAR[..JAR.len() - 1]).is_none());
        assert!(stored_classes(b"PK").is_none());
    }

    #[test]
    fn options_for_archives_are_told_from_others() {
        for word in ["-XX:SharedArchiveFile=a.jsa", "-XX:AOTCache=a", "-XX:AOTMode=record", "@args"]
        {
            assert!(tells_of_archive(word), "{word}");
        }
        for word in ["-Xshare:on", "-XX:+UseG1GC", "app.jar", "XX:AOTCache", "-cp"] {
            assert!(!tells_of_archive(word), "{word}");
        }
    }
}
