//! What is only looked at.
//!
//! Out: probes with values, and what follows from those that are unusual.

use super::{Finding, NOTHING, Probe};
use std::fs;

/// Every value that decides about a checkpoint or a restore.
pub(super) fn probes() -> Vec<Probe> {
    let value = |name, finding, follows| Probe {
        name,
        finding: Finding::Value(finding),
        follows,
        needed_for: NOTHING,
    };
    let read = |path| fs::read_to_string(path).map(|text| text.trim_end().to_owned());
    let yama = read("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_else(|_| "none".into());
    let yama_follows = match yama.as_str() {
        "none" | "0" => "",
        "1" => {
            "`tub checkpoint` reaches its own descendants, and processes that allow it: those \
             that `tub run` started do"
        }
        "2" => "`tub checkpoint` needs CAP_SYS_PTRACE",
        _ => "no checkpoint can be taken until the host is booted with another setting",
    };
    let maps = read("/proc/sys/vm/max_map_count").unwrap_or_else(|error| error.to_string());
    let maps_follows = if maps.parse::<u64>().is_ok_and(|count| count < DEFAULT_MAX_MAP_COUNT) {
        "processes with many mappings may not restore: each stretch of saved pages takes one"
    } else {
        ""
    };
    let (files, memory) = (limit(RLIMIT_NOFILE), limit(RLIMIT_MEMLOCK));
    let status = fs::read("/proc/self/status").ok();
    let status = status.and_then(|text| tub_procfs::status::parse(&text).ok());
    let (seccomp, seccomp_follows) = seccomp(status.as_ref().and_then(|status| status.seccomp));
    let no_new_privs = status
        .as_ref()
        .map_or("unknown", |status| if status.no_new_privs { "set" } else { "not set" });
    let capabilities =
        status.map_or_else(|| "unknown".into(), |status| format!("{:#x}", status.cap_eff));
    let overcommit = read("/proc/sys/vm/overcommit_memory").unwrap_or_else(|_| "unknown".into());
    let overcommit_follows = if overcommit == "2" {
        "large reservations, as runtimes make them, may be refused when an image is restored"
    } else {
        ""
    };
    let (kernel, processor, state) = machine();
    vec![
        value("kernel", kernel, ""),
        value("processor", processor, ""),
        value("extended state of the processor", state, ""),
        value("Yama ptrace_scope", yama, yama_follows),
        value("mappings of a process, at most", maps, maps_follows),
        value("open files, at most", files, ""),
        value("locked memory in bytes, at most", memory, ""),
        value("overcommit of memory", overcommit, overcommit_follows),
        value("effective capabilities", capabilities, ""),
        value("no_new_privs on ourselves", no_new_privs.into(), ""),
        value("seccomp filter on ourselves", seccomp, seccomp_follows),
    ]
}

/// KERNEL(since 2.6): `DEFAULT_MAX_MAP_COUNT`, include/linux/mm.h.
const DEFAULT_MAX_MAP_COUNT: u64 = 65_530;

/// asm-generic/resource.h.
const RLIMIT_NOFILE: u32 = 7;
const RLIMIT_MEMLOCK: u32 = 8;

/// Soft and hard limit.
fn limit(resource: u32) -> String {
    let text = |bound| if bound == u64::MAX { "unlimited".to_owned() } else { format!("{bound}") };
    let limits = fs::read("/proc/self/limits").ok().and_then(|text| {
        tub_procfs::limits::parse(&text).ok()?.into_iter().find(|limit| limit.resource == resource)
    });
    limits.map_or_else(
        || "unknown".into(),
        |limit| format!("{} (hard {})", text(limit.soft), text(limit.hard)),
    )
}

fn seccomp(mode: Option<u32>) -> (String, &'static str) {
    match mode {
        None => ("unknown".into(), ""),
        Some(0) => ("none".into(), ""),
        Some(mode) => (
            format!("mode {mode}"),
            "a container or sandbox filters system calls: what it refuses is listed above",
        ),
    }
}

/// Kernel, processor, and how much of its state a thread has.
fn machine() -> (String, String, String) {
    match crate::facts() {
        Ok(facts) => {
            let wide = if facts.xsave_features & AVX512 == AVX512 { "with" } else { "without" };
            let bytes = facts.xsave_bytes;
            let state = format!("{bytes} bytes a thread, {wide} AVX-512");
            (format!("Linux {} on {}", facts.kernel_release, facts.arch), facts.cpu_model, state)
        }
        Err(error) => (error.to_string(), "unknown".into(), "unknown".into()),
    }
}

/// XCR0: opmask, upper halves of ZMM0-15, ZMM16-31 (Intel SDM 1, 13.1).
const AVX512: u64 = 0b111 << 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_a_value() {
        for probe in probes() {
            assert!(
                matches!(&probe.finding, Finding::Value(value) if !value.is_empty()),
                "{probe:?}"
            );
        }
    }
}
