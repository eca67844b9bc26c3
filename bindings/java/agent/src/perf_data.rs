//! The file by which `jps` and `jstat` find this JVM, in a copy.
//!
//! In: the mapping of it, whose file the engine makes anew and names after the copy's id on the host.
//! Out: a JVM that removes that file at its end, and no other: the name that it remembers is that of
//! the original, and may be another JVM's by now.
//! Invariant: nothing is written but the digits at the end of that name, where it is found for certain.
//! Not here: the file and its content, which the engine brings back.
//!
//! JVM(since 17): `os/posix/perfMemory_posix.cpp` keeps the path on the native heap, with room for any
//! process id, and points to it from a static variable; same on 25. Looked for once, before the
//! first image, since afterwards the mappings of the library no longer bear its name.

use crate::mapping;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Where the JVM keeps the name; none where it has no such file, or keeps the name otherwise.
static NAME: OnceLock<Option<Name>> = OnceLock::new();

#[derive(Clone, Copy, Debug)]
struct Name {
    /// Address of the first of the digits.
    digits: u64,
    /// Address at which the file is mapped.
    mapping: u64,
}

/// JVM: room for the digits of any id, and a NUL.
const DIGITS_MAX: usize = 10;

/// Finds out where the name is kept.
pub(crate) fn remember() {
    NAME.get_or_init(find);
}

/// Tells the JVM what the file is called now: in a copy, another name; in the original, the same.
pub(crate) fn follow() {
    let Some(Some(name)) = NAME.get() else { return };
    // One without a name of its own: the JVM must remove nobody else's.
    let digits = digits_at(name.mapping).unwrap_or_else(|| "0".to_owned());
    let Ok(memory) = File::options().read(true).write(true).open("/proc/self/mem") else { return };
    let mut text = digits.as_bytes().to_vec();
    text.push(0);
    // The JVM reads it at its end. Where it cannot be written all is as before.
    let _ = memory.write_all_at(&text, name.digits);
}

/// The digits at the end of the path of such a file, which is mapped there.
fn digits_at(address: u64) -> Option<String> {
    if let Ok(found) = mapping::at(address) {
        let found = found?;
        let rights = if found.is_shared_writable { "rw-s" } else { "" };
        let map = Map { start: found.start, end: found.end, rights, path: &found.path };
        return map.perf_data_digits().map(str::to_owned);
    }
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let map = maps.lines().filter_map(Map::parse).find(|map| map.start == address)?;
    map.perf_data_digits().map(str::to_owned)
}

/// Where that file is mapped, from and to.
pub(crate) fn mapping() -> Option<(u64, u64)> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let mut maps = maps.lines().filter_map(Map::parse);
    maps.find(|map| map.perf_data_digits().is_some()).map(|map| (map.start, map.end))
}

fn find() -> Option<Name> {
    let text = fs::read_to_string("/proc/self/maps").ok()?;
    let maps: Vec<Map<'_>> = text.lines().filter_map(Map::parse).collect();
    let map = maps.iter().find(|map| map.perf_data_digits().is_some())?;
    let memory = File::open("/proc/self/mem").ok()?;
    let mut expected = map.path.as_bytes().to_vec();
    expected.push(0);
    let mut found = vec![0; expected.len()];
    let mut is_there =
        |address: u64| memory.read_exact_at(&mut found, address).is_ok() && found == expected;
    let is_private = |address: u64| {
        let at = maps.partition_point(|map| map.end <= address);
        maps.get(at).is_some_and(|map| map.start <= address && map.rights == "rw-p")
    };
    for variables in variables(&maps) {
        let mut bytes = vec![0; usize::try_from(variables.end - variables.start).ok()?];
        memory.read_exact_at(&mut bytes, variables.start).ok()?;
        let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
        if let Some(text) = words.filter(|&word| is_private(word)).find(|&word| is_there(word)) {
            let directory = map.path.rfind('/')? as u64 + 1;
            return Some(Name { digits: text + directory, mapping: map.start });
        }
    }
    None
}

/// Where the JVM's library has its variables: those with values, and behind them those without.
fn variables<'a>(maps: &'a [Map<'a>]) -> impl Iterator<Item = &'a Map<'a>> {
    let is_jvm = |map: &Map<'_>| map.path.ends_with("/libjvm.so");
    maps.iter().enumerate().filter_map(move |(at, map)| {
        let follows = at.checked_sub(1).and_then(|before| maps.get(before));
        let follows = follows.is_some_and(|before| is_jvm(before) && before.end == map.start);
        let is_variables = is_jvm(map) || map.path.is_empty() && follows;
        (map.rights == "rw-p" && is_variables).then_some(map)
    })
}

/// A line of `/proc/PID/maps` (proc_pid_maps(5)).
#[derive(Clone, Copy, Debug)]
struct Map<'a> {
    start: u64,
    end: u64,
    rights: &'a str,
    path: &'a str,
}

impl<'a> Map<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        let (start, end, rights) = (address(start)?, address(end)?, fields.next()?);
        let path = fields.nth(3).unwrap_or("").trim_start();
        Some(Self { start, end, rights, path })
    }

    /// The digits at the end of the path of such a file.
    fn perf_data_digits(&self) -> Option<&'a str> {
        let (directory, name) = self.path.rsplit_once('/')?;
        let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        let fits = is_number && name.len() <= DIGITS_MAX;
        (self.rights == "rw-s" && directory.contains("/hsperfdata_") && fits).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let text = "\
7f0000001000-7f0000002000 r-xp 00000000 fe:00 12 /usr/lib/jvm/lib/server/libjvm.so
7f0000002000-7f0000003000 rw-p 00001000 fe:00 12 /usr/lib/jvm/lib/server/libjvm.so
7f0000003000-7f0000004000 rw-p 00000000 00:00 0 
7f0000004000-7f0000005000 rw-p 00000000 00:00 0 
7f139f5d1000-7f139f5d9000 rw-s 00000000 fe:00 9986049                    /tmp/hsperfdata_root/9120
7f139f5d9000-7f139f5da000 rw-s 00000000 fe:00 9986050                    /tmp/hsperfdata_root/9120 (deleted)
";
        let maps: Vec<_> = text.lines().filter_map(Map::parse).collect();
        let starts: Vec<u64> = variables(&maps).map(|map| map.start).collect();
        assert_eq!(starts, [0x7f00_0000_2000, 0x7f00_0000_3000]);
        let digits: Vec<_> = maps.iter().filter_map(Map::perf_data_digits).collect();
        assert_eq!(digits, ["9120"]);
    }
}
