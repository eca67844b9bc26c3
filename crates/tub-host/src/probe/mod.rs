//! What this host allows, found out by trying.
//!
//! In: a helper, which tries what would change the process that tries it. Out: a [`Probe`] each.
//! Invariant: nothing is left behind: helpers end with their probe, within seconds.
//! Not here: what a restore makes of it (`tub-restore` tries again and falls back by itself).

mod helper;

pub use helper::{Helper, try_in_helper};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use tub_units::{AddrRange, HostPid, PAGE_BYTES};

/// One thing that was tried or looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What.
    pub name: &'static str,
    /// What came of it.
    pub finding: Finding,
    /// What follows from it; empty where nothing does.
    pub follows: &'static str,
    /// Whether nothing works without it.
    pub essential: bool,
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It works.
    Works,
    /// It does not, for this reason.
    Refused(String),
    /// It is a number or a state.
    Value(String),
}

impl Probe {
    /// Whether something that nothing works without is missing.
    pub const fn is_fatal(&self) -> bool {
        self.essential && matches!(self.finding, Finding::Refused(_))
    }
}

/// Tries everything. `image_dir` is where images are to lie.
pub fn probe(helper: &Helper<'_>, image_dir: &Path) -> Vec<Probe> {
    let mut found = traced(helper);
    found.push(tried(
        "scan of page tables",
        page_scan(),
        "no checkpoint can be taken: Linux 6.7 or later is needed",
        true,
    ));
    found.push(tried(
        "kernel support for checkpoints",
        kernel_support(),
        "the kernel lacks CONFIG_CHECKPOINT_RESTORE: vdso and memory bounds cannot be restored",
        true,
    ));
    found.push(tried(
        "comparison of descriptors",
        same_description(),
        "descriptors that share an open file cannot be told from those that do not (kcmp)",
        false,
    ));
    let clone3 = if tub_sys::has_clone3() { Ok(()) } else { Err(Errno::ENOSYS.to_string()) };
    found.push(tried("clone3", clone3, "ids cannot be kept: use --pids new", false));
    let timers =
        if tub_sys::has_timer_restore_ids() { Ok(()) } else { Err(Errno::EINVAL.to_string()) };
    found.push(tried(
        "timers with chosen ids",
        timers,
        "processes whose POSIX timers have gaps between their ids cannot be restored \
         (Linux 6.15 or later)",
        false,
    ));
    found.extend(namespaces(helper));
    found.push(tried(
        "executable mappings of images",
        executable_mappings(image_dir),
        "compiled code is copied instead of mapped: restores are slower and share less",
        false,
    ));
    found.extend(values());
    found
}

fn tried(
    name: &'static str,
    outcome: Result<(), String>,
    otherwise: &'static str,
    essential: bool,
) -> Probe {
    match outcome {
        Ok(()) => Probe { name, finding: Finding::Works, follows: "", essential },
        Err(reason) => {
            Probe { name, finding: Finding::Refused(reason), follows: otherwise, essential }
        }
    }
}

/// Everything that takes a stopped child.
fn traced(helper: &Helper<'_>) -> Vec<Probe> {
    let mut rseq = Err("no process could be stopped".to_owned());
    let mut xstate = rseq.clone();
    let stopped = helper.with_waiting(|pid| {
        let failed = |call: &'static str| move |errno: Errno| format!("{call}: {errno}");
        ptrace::seize(pid, ptrace::Options::empty()).map_err(failed("PTRACE_SEIZE"))?;
        ptrace::interrupt(pid).map_err(failed("PTRACE_INTERRUPT"))?;
        waitpid(pid, None).map_err(failed("waitpid"))?;
        let tid = HostPid(pid.as_raw());
        rseq = tub_sys::ptrace_rseq(tid).map(drop).map_err(|errno| errno.to_string());
        xstate = tub_sys::ptrace_xstate(tid).map(drop).map_err(|errno| errno.to_string());
        ptrace::detach(pid, None).map_err(failed("PTRACE_DETACH"))
    });
    vec![
        tried(
            "tracing of own processes",
            stopped.and_then(|traced| traced),
            "no checkpoint can be taken (PTRACE_SEIZE); restores need no tracing",
            true,
        ),
        tried(
            "registers with extended state",
            xstate,
            "no checkpoint can be taken (NT_X86_XSTATE)",
            true,
        ),
        tried(
            "restartable sequences",
            rseq,
            "programs with glibc 2.35 or later cannot be checkpointed (Linux 5.13 or later)",
            true,
        ),
    ]
}

fn page_scan() -> Result<(), String> {
    let pagemap = File::open("/proc/self/pagemap").map_err(|error| error.to_string())?;
    let range = AddrRange::with_len(PAGE_BYTES * 16, PAGE_BYTES).ok_or("no such range")?;
    let scanned = tub_sys::pagemap_scan(pagemap.as_fd(), range, false);
    scanned.map(drop).map_err(|errno| errno.to_string())
}

/// KERNEL(since 3.10): `/proc/PID/timers` exists only with CONFIG_CHECKPOINT_RESTORE, which
/// `ARCH_MAP_VDSO_64` and `PR_SET_MM_MAP` depend on as well.
fn kernel_support() -> Result<(), String> {
    fs::metadata("/proc/self/timers").map(drop).map_err(|error| error.to_string())
}

fn same_description() -> Result<(), String> {
    let file = File::open("/proc/self/stat").map_err(|error| error.to_string())?;
    let other = file.try_clone().map_err(|error| error.to_string())?;
    let ourselves = HostPid(nix::unistd::getpid().as_raw());
    match tub_sys::same_description(ourselves, file.as_raw_fd(), other.as_raw_fd()) {
        Ok(true) => Ok(()),
        Ok(false) => Err("two numbers of one file are told to differ".into()),
        Err(errno) => Err(errno.to_string()),
    }
}

fn namespaces(helper: &Helper<'_>) -> Vec<Probe> {
    let user = helper.run(helper::USER_NAMESPACE);
    let pids = helper.run(helper::PID_NAMESPACE);
    let time = helper.run(helper::TIME_NAMESPACE);
    let mut found = vec![
        tried(
            "user namespace",
            user.outcome(helper::USER_NAMESPACE),
            "only root can keep ids: others use --pids new",
            false,
        ),
        tried(
            "PID namespace",
            pids.outcome(helper::PID_NAMESPACE),
            "ids cannot be kept: use --pids new",
            false,
        ),
        tried(
            "time namespace",
            time.outcome(helper::TIME_NAMESPACE),
            "after a restore monotonic clocks jump; an image from before a reboot is refused",
            false,
        ),
    ];
    if found[1].finding == Finding::Works {
        found.extend([
            tried(
                "chosen ids in a PID namespace",
                pids.outcome(helper::CHOSEN_ID),
                "ids cannot be kept: use --pids new",
                false,
            ),
            tried(
                "own /proc in a PID namespace",
                pids.outcome(helper::MOUNT_PROC),
                "with --pids keep, the restored process sees the host's ids in /proc",
                false,
            ),
        ]);
    }
    found
}

fn executable_mappings(dir: &Path) -> Result<(), String> {
    let found = statvfs(dir).map_err(|errno| format!("{}: {errno}", dir.display()))?;
    if found.flags().contains(FsFlags::ST_NOEXEC) {
        return Err(format!("{} is on a file system mounted noexec", dir.display()));
    }
    Ok(())
}

/// What is only looked at.
fn values() -> Vec<Probe> {
    let value = |name, finding, follows| Probe {
        name,
        finding: Finding::Value(finding),
        follows,
        essential: false,
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
    let (seccomp, seccomp_follows) = seccomp();
    vec![
        value("Yama ptrace_scope", yama, yama_follows),
        value("mappings of a process, at most", maps, maps_follows),
        value("open files, at most", files, ""),
        value("locked memory in bytes, at most", memory, ""),
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

fn seccomp() -> (String, &'static str) {
    let status = fs::read("/proc/self/status").ok();
    let status = status.and_then(|text| tub_procfs::status::parse(&text).ok());
    match status.and_then(|status| status.seccomp) {
        None => ("unknown".into(), ""),
        Some(0) => ("none".into(), ""),
        Some(mode) => (
            format!("mode {mode}"),
            "a container or sandbox filters system calls; what it refuses is listed above, and a \
             process under a filter of its own cannot be checkpointed",
        ),
    }
}

/// Ends a helper by its id; it is our child and not waited for yet, so the id is still its own.
fn kill(pid: Pid) {
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_helper_says_something() {
        for probe in values() {
            assert!(
                matches!(&probe.finding, Finding::Value(value) if !value.is_empty()),
                "{probe:?}"
            );
        }
        executable_mappings(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(same_description(), Ok(()));
    }

    #[test]
    fn only_what_is_essential_is_fatal() {
        let refused = |essential| tried("x", Err("no".into()), "so", essential);
        assert!(refused(true).is_fatal() && !refused(false).is_fatal());
        assert!(!tried("x", Ok(()), "so", true).is_fatal());
        assert_eq!(tried("x", Ok(()), "so", true).follows, "");
    }
}
