//! HotSpot's performance counters, as far as a CRaC JDK stores them with an image.
//!
//! In: the file by which `jstat` reads them, where this process has it mapped. Out: numbers as text, by the
//! names that a CRaC JDK has for them. Without `-XX:+UsePerfData`, or with `-XX:+PerfDisableSharedMem`, none.
//! Invariant: nothing is allocated in Java, and no class is loaded for it: both would be in the image. What the
//! file says of its own layout is checked.
//! Not here: what beans tell (`Metrics.java`), and `vm.ci.totalQueued`, which HotSpot tells only its flight
//! recorder.
//!
//! JVM(since 17): `PerfDataPrologue` and `PerfDataEntry` of `perfMemory.hpp`, format 2.0; same on 25.

use crate::perf_data;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Those that have the same name, and the same unit, with an image.
const NAMES: [&str; 14] = [
    "java.cls.loadedClasses",
    "java.cls.sharedLoadedClasses",
    "java.cls.unloadedClasses",
    "java.cls.sharedUnloadedClasses",
    "sun.cls.appClassLoadCount",
    "sun.ci.totalCompiles",
    "sun.ci.totalBailouts",
    "sun.ci.totalInvalidates",
    "sun.ci.osrCompiles",
    "sun.ci.standardCompiles",
    "sun.ci.osrBytes",
    "sun.ci.standardBytes",
    "sun.ci.nmethodSize",
    "sun.ci.nmethodCodeSize",
];

/// In ticks here, and in milliseconds with an image.
const COMPILE_TIME: &str = "java.ci.totalTime";
const FREQUENCY: &str = "sun.os.hrt.frequency";

/// JVM: 32 KB, by `-XX:PerfDataMemorySize` at most this.
const FILE_MAX: u64 = 128 << 20;

/// All of them as they are now, and the time of the processors.
pub(crate) fn metrics() -> Vec<(String, String)> {
    let mut all = vec![("vm.processCpuTime".to_owned(), processor_ms().to_string())];
    let bytes = content().unwrap_or_default();
    let counters = parse(&bytes).unwrap_or_default();
    let same = NAMES.iter().filter_map(|&name| Some((name, *counters.get(name)?)));
    all.extend(same.map(|(name, value)| (name.to_owned(), value.to_string())));
    if let (Some(ticks), Some(frequency)) = (counters.get(COMPILE_TIME), counters.get(FREQUENCY))
        && let Some(per_ms) = frequency.checked_div(1000).filter(|&per_ms| per_ms > 0)
    {
        all.push((COMPILE_TIME.to_owned(), (ticks / per_ms).to_string()));
    }
    all
}

fn processor_ms() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) wants a place for one timespec, which `time` is.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

/// The file as this process has it in its memory; read through the kernel, since others may cut it short.
fn content() -> Option<Vec<u8>> {
    let (start, end) = perf_data::mapping()?;
    let length = end.checked_sub(start).filter(|&length| length <= FILE_MAX)?;
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    File::open("/proc/self/mem").ok()?.read_exact_at(&mut bytes, start).ok()?;
    Some(bytes)
}

/// The counters that are single numbers; `None` where the file is none of this format.
fn parse(bytes: &[u8]) -> Option<BTreeMap<&str, i64>> {
    // The first number is big-endian whatever the machine; of this one's order is the rest.
    const MAGIC: [u8; 4] = [0xca, 0xfe, 0xc0, 0xc0];
    let order = u8::from(cfg!(target_endian = "little"));
    let is_known = bytes.starts_with(&MAGIC) && bytes.get(4..6)? == [order, 2];
    is_known.then_some(())?;
    let number = |at: usize| {
        let number = i32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?);
        usize::try_from(number).ok()
    };
    let (mut at, count) = (number(24)?, number(28)?);
    let mut counters = BTreeMap::new();
    for _ in 0..count {
        let entry = bytes.get(at..)?.get(..number(at)?)?;
        let (name, vector, value) = (number(at + 4)?, number(at + 8)?, number(at + 16)?);
        // Its type in the words of a class file: J is a long.
        if vector == 0 && *entry.get(12)? == b'J' {
            let name = entry.get(name..)?;
            let end = name.iter().position(|&byte| byte == 0)?;
            let value = i64::from_ne_bytes(*entry.get(value..)?.first_chunk()?);
            counters.insert(std::str::from_utf8(&name[..end]).ok()?, value);
        }
        at = at.checked_add(entry.len()).filter(|_| !entry.is_empty())?;
    }
    Some(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with these counters, as HotSpot lays it out: the name, then the value at a multiple of 8.
    fn file(counters: &[(&str, u8, i64)]) -> Vec<u8> {
        let mut bytes = vec![0xca, 0xfe, 0xc0, 0xc0, 1, 2, 0, 1];
        bytes.resize(24, 0);
        for number in [32, i32::try_from(counters.len()).unwrap()] {
            bytes.extend(number.to_ne_bytes());
        }
        for &(name, kind, value) in counters {
            let place = (20 + name.len() + 1).next_multiple_of(8);
            for number in [place + 8, 20, 0] {
                bytes.extend(i32::try_from(number).unwrap().to_ne_bytes());
            }
            bytes.extend([kind, 1, 1, 1]);
            bytes.extend(i32::try_from(place).unwrap().to_ne_bytes());
            bytes.extend(name.as_bytes());
            bytes.resize(bytes.len() + place - 20 - name.len(), 0);
            bytes.extend(value.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn counters_are_read_and_nothing_beyond_the_file() {
        let whole = file(&[("sun.ci.osrBytes", b'J', 7), ("a.text", b'B', 1), ("x", b'J', -2)]);
        let counters = parse(&whole).unwrap();
        assert_eq!(counters.into_iter().collect::<Vec<_>>(), [("sun.ci.osrBytes", 7), ("x", -2)]);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length]).is_none(), "{length}");
        }
        for at in 0..whole.len() {
            for byte in [0, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                let _ = parse(&damaged);
            }
        }
    }

    #[test]
    fn a_process_that_is_no_jvm_has_the_time_of_the_processors() {
        let names: Vec<_> = metrics().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["vm.processCpuTime"]);
    }
}
