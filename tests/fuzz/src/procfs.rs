//! Parsers of `/proc`: any user of the host has a say in what stands there.
//!
//! In: the bytes of one file. Out: nothing. Invariant: what a parser promises about its records
//! holds for any input that it takes.

use crate::{Target, fixtures};
use tub_procfs::{
    auxv, children, cpuinfo, fdinfo, limits, maps, net, smaps, stat, status, timens, timers,
};

pub(crate) fn targets() -> Vec<Target> {
    vec![
        Target::new("proc-auxv", |bytes| drop(auxv::parse(bytes)), || of_both("auxv")),
        Target::new(
            "proc-children",
            |bytes| drop(children::parse(bytes)),
            || vec![b"17 18 4194304 ".to_vec(), Vec::new()],
        ),
        Target::new(
            "proc-cpuinfo",
            |bytes| drop(cpuinfo::parse(bytes)),
            || fixtures(&["proc/6.18/cpuinfo"]),
        ),
        Target::new("proc-fdinfo", |bytes| drop(fdinfo::parse(bytes)), || of_both("fdinfo")),
        Target::new("proc-limits", |bytes| drop(limits::parse(bytes)), || of_both("limits")),
        Target::new("proc-maps", read_maps, || of_both("maps")),
        Target::new(
            "proc-net-inet",
            |bytes| {
                let _ = net::parse_tcp(bytes);
                let _ = net::parse_udp(bytes);
            },
            || {
                ["tcp", "tcp6", "udp", "udp6"]
                    .iter()
                    .flat_map(|file| of_both(&format!("net/{file}")))
                    .collect()
            },
        ),
        Target::new("proc-net-unix", read_unix, || of_both("net/unix")),
        Target::new("proc-smaps", read_smaps, || of_both("smaps")),
        Target::new("proc-stat", |bytes| drop(stat::parse(bytes)), || of_both("stat")),
        Target::new("proc-status", |bytes| drop(status::parse(bytes)), || of_both("status")),
        Target::new(
            "proc-timens",
            |bytes| drop(timens::parse_offsets(bytes)),
            || of_both("timens_offsets"),
        ),
        Target::new("proc-timers", |bytes| drop(timers::parse(bytes)), || of_both("timers")),
    ]
}

/// What the two processes of the fixtures had in that file or directory.
fn of_both(file: &str) -> Vec<Vec<u8>> {
    let paths = ["subject", "jvm"].map(|process| format!("proc/6.18/{process}/{file}"));
    fixtures(&paths.each_ref().map(String::as_str))
}

fn read_maps(bytes: &[u8]) {
    let Ok(records) = maps::parse(bytes) else { return };
    let mut end = 0;
    for record in records {
        assert!(record.range.start() >= end, "mappings ascend and do not overlap");
        end = record.range.end();
    }
}

fn read_smaps(bytes: &[u8]) {
    let Ok(records) = smaps::parse(bytes) else { return };
    for record in records {
        assert!(
            record.vm_flags.codes().all(|code| record.vm_flags.has(code)),
            "a flag that is listed is had"
        );
    }
}

fn read_unix(bytes: &[u8]) {
    let lines = bytes.split(|&byte| byte == b'\n').count();
    assert!(net::parse_unix(bytes).expect("never refused").len() <= lines, "a line is one socket");
}
