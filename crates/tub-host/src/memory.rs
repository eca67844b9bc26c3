//! How much memory could be had now.
//!
//! In: `/proc/meminfo`, the files of our control groups. Out: bytes. Invariant: a limit that cannot
//! be read does not count; what is told is a hint, never a promise.

use std::fs;
use std::path::Path;

/// What could be had without taking it from anybody: of the machine, and within the limits of our
/// control groups. None where not even the machine tells.
///
/// # References
///
/// proc_meminfo(5): `MemAvailable`. KERNEL: Documentation/admin-guide/cgroup-v2.rst (`memory.max`,
/// `memory.current`), cgroup-v1/memory.rst.
pub fn spare_memory_bytes() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let within = groups.lines().filter_map(spare_in_group);
    within.chain(machine).min().filter(|_| machine.is_some()).unwrap_or(0)
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// What a line of `/proc/self/cgroup` leaves us: the group, and all above it, as far as they are
/// seen where they usually are.
fn spare_in_group(line: &str) -> Option<u64> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let (top, files) = match controllers {
        "" => ("/sys/fs/cgroup", ["memory.max", "memory.current"]),
        "memory" => ("/sys/fs/cgroup/memory", ["memory.limit_in_bytes", "memory.usage_in_bytes"]),
        _ => return None,
    };
    let group = Path::new(top).join(path.trim_start_matches('/'));
    let groups = group.ancestors().take_while(|group| group.starts_with(top));
    groups.filter_map(|group| spare_in(group, files)).min()
}

/// A group's limit, less what it uses and could not give back: pages of files that nobody has
/// touched lately are given back first.
fn spare_in(group: &Path, [limit, usage]: [&str; 2]) -> Option<u64> {
    let number = |file| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    // No limit is the word "max", or a number that no memory comes near.
    let limit = number(limit)?;
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let inactive = stat.lines().find_map(|line| {
        let line = line.strip_prefix("total_").unwrap_or(line);
        line.strip_prefix("inactive_file ")?.parse::<u64>().ok()
    });
    let used = number(usage)?.saturating_sub(inactive.unwrap_or(0));
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_available_is_read_and_nothing_else() {
        let text = "MemTotal:       24684220 kB\nMemFree: 1 kB\nMemAvailable:   23413484 kB\n";
        assert_eq!(available(text), Some(23_413_484 * 1024));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn this_host_has_memory_to_spare() {
        assert!(spare_memory_bytes() > 1 << 20);
    }

    #[test]
    fn a_group_gives_back_what_nobody_has_touched() {
        let group = std::env::temp_dir().join(format!("tub-group-{}", std::process::id()));
        fs::create_dir(&group).unwrap();
        let files = ["memory.max", "memory.current"];
        fs::write(group.join("memory.current"), "800\n").unwrap();
        fs::write(group.join("memory.stat"), "anon 5\ninactive_file 300\n").unwrap();
        fs::write(group.join("memory.max"), "max\n").unwrap();
        assert_eq!(spare_in(&group, files), None);
        fs::write(group.join("memory.max"), "1000\n").unwrap();
        assert_eq!(spare_in(&group, files), Some(500));
        fs::remove_dir_all(&group).unwrap();
    }
}
