//! `tub-subject --confined PROFILE UID PROGRAM [WORD…]` becomes that program, confined as the
//! default profile of a container engine confines it.
//!
//! In: `docker`, `podman` or `sandbox`, the user, a command; run by root. Out: the command, with the system
//! calls, capabilities and mounts that it would find in a container without any option.
//! Invariant: the profiles are written down as the differences that were measured in real
//! containers (Docker 26.1, Podman 5.4), and in the words of the kernel: errno for errno.
//! Not here: namespaces for processes, networks and users, which take nothing away from an engine.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::ffi::{CStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What a container engine takes away.
struct Profile {
    /// Capabilities that are left to uid 0.
    capabilities: u64,
    /// Calls that answer EPERM.
    forbidden: &'static [i64],
    /// Calls that answer ENOSYS.
    unknown: &'static [i64],
    /// Whether clone(2) makes no namespace.
    no_namespaces: bool,
    /// What personality(2) answers to anything but its everyday values.
    personality: i32,
}

/// Calls that both profiles forbid: they need capabilities that no default container has, or
/// reach what is not the container's.
const PRIVILEGED: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_bpf,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_lookup_dcookie,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_process_madvise,
    libc::SYS_quotactl,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_sysfs,
    libc::SYS_uselib,
    libc::SYS_userfaultfd,
    libc::SYS_ustat,
    libc::SYS_vhangup,
];

const KEYS: [i64; 3] = [libc::SYS_add_key, libc::SYS_keyctl, libc::SYS_request_key];
const URING: [i64; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

const DOCKER: Profile = Profile {
    capabilities: 0xa804_25fb,
    forbidden: &[
        KEYS[0],
        KEYS[1],
        KEYS[2],
        URING[0],
        URING[1],
        URING[2],
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fsopen,
        libc::SYS_fspick,
        libc::SYS_get_mempolicy,
        libc::SYS_mbind,
        libc::SYS_mount,
        libc::SYS_mount_setattr,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_pidfd_getfd,
        libc::SYS_pivot_root,
        libc::SYS_reboot,
        libc::SYS_set_mempolicy,
        libc::SYS_syslog,
        libc::SYS_umount2,
        libc::SYS_unshare,
    ],
    unknown: &[libc::SYS_clone3],
    no_namespaces: true,
    personality: libc::EPERM,
};

const PODMAN: Profile = Profile {
    capabilities: 0x8004_05fb,
    forbidden: &[libc::SYS_vmsplice],
    unknown: &[
        KEYS[0],
        KEYS[2],
        URING[0],
        URING[1],
        URING[2],
        libc::SYS_futex_waitv,
        libc::SYS_quotactl_fd,
        libc::SYS_set_mempolicy_home_node,
    ],
    no_namespaces: false,
    personality: libc::ENOSYS,
};

/// A sandbox that lets nobody look into anybody: nothing works there.
const SANDBOX: Profile = Profile { forbidden: &[libc::SYS_ptrace, libc::SYS_unshare], ..DOCKER };

/// Becomes the program. Returns only what kept it from that.
pub(crate) fn run(mut words: impl Iterator<Item = OsString>) -> io::Error {
    let usage = || io::Error::other("--confined docker|podman|sandbox UID PROGRAM [WORD...]");
    let profile = match words.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("docker") => &DOCKER,
        Some("podman") => &PODMAN,
        Some("sandbox") => &SANDBOX,
        _ => return usage(),
    };
    let user = words.next().and_then(|word| word.to_str()?.parse().ok());
    let (Some(user), Some(program)) = (user, words.next()) else { return usage() };
    match confine(profile, user) {
        Ok(()) => Command::new(program).args(words).exec(),
        Err(error) => error,
    }
}

/// In the order of container runtimes: mounts, the bounding set, the filter, the user.
fn confine(profile: &Profile, user: u32) -> io::Result<()> {
    crate::sys::close_on_exec_from(3)?;
    mask_proc()?;
    for capability in (0..64).filter(|bit| profile.capabilities >> bit & 1 == 0) {
        // SAFETY: takes integers. EINVAL means that this kernel does not know so many.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if dropped != 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            return Err(io::Error::last_os_error());
        }
    }
    for filter in filters(profile).map_err(io::Error::other)? {
        install(&filter)?;
    }
    // SAFETY: an empty list is read from nowhere.
    call(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: takes integers.
    call(unsafe { libc::setresgid(user, user, user) })?;
    // SAFETY: takes integers.
    call(unsafe { libc::setresuid(user, user, user) })
}

/// Parts of /proc are hidden, which keeps a user namespace from mounting one of its own
/// (KERNEL: `mount_too_revealing`, fs/namespace.c), and /dev/shm executes nothing.
fn mask_proc() -> io::Result<()> {
    // SAFETY: takes an integer.
    call(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount(c"none", c"/", None, libc::MS_REC | libc::MS_PRIVATE)?;
    for path in [c"/proc/kcore", c"/proc/keys", c"/proc/timer_list"] {
        match mount(c"/dev/null", path, None, libc::MS_BIND) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            mounted => mounted?,
        }
    }
    let read_only = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
    mount(c"/proc/sys", c"/proc/sys", None, libc::MS_BIND)?;
    mount(c"none", c"/proc/sys", None, read_only | HARMLESS)?;
    mount(c"shm", c"/dev/shm", Some(c"tmpfs"), HARMLESS)
}

const HARMLESS: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

fn mount(from: &CStr, to: &CStr, kind: Option<&CStr>, flags: libc::c_ulong) -> io::Result<()> {
    let kind = kind.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: all strings end in NUL and outlive the call; no data is passed.
    call(unsafe { libc::mount(from.as_ptr(), to.as_ptr(), kind, flags, std::ptr::null()) })
}

/// One program for each answer: a filter has only one. The kernel takes the strictest of all, and
/// they do not overlap.
fn filters(profile: &Profile) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let mut forbidden: Rules = BTreeMap::new();
    for call in PRIVILEGED.iter().chain(profile.forbidden) {
        forbidden.insert(*call, Vec::new());
    }
    if profile.no_namespaces {
        let bits = (0..32).map(|bit| 1u64 << bit).filter(|bit| NAMESPACES & bit != 0);
        forbidden.insert(libc::SYS_clone, bits.map(has_bit).collect::<Result<_, _>>()?);
    }
    let mut unknown: Rules = profile.unknown.iter().map(|call| (*call, Vec::new())).collect();
    let usual = if profile.personality == libc::EPERM { &mut forbidden } else { &mut unknown };
    usual.insert(libc::SYS_personality, vec![unusual_personality()?]);
    [(forbidden, libc::EPERM), (unknown, libc::ENOSYS)]
        .into_iter()
        .map(|(rules, errno)| {
            let answer = SeccompAction::Errno(errno.cast_unsigned());
            let filter =
                SeccompFilter::new(rules, SeccompAction::Allow, answer, TargetArch::x86_64)?;
            filter.try_into()
        })
        .collect()
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID and NET (linux/sched.h).
const NAMESPACES: u64 = 0x7e02_0000;

fn has_bit(bit: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    let masked = SeccompCmpOp::MaskedEq(bit);
    SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Qword, masked, bit)?])
}

/// PER_LINUX and PER_LINUX32 with and without UNAME26, and the query.
fn unusual_personality() -> Result<SeccompRule, seccompiler::BackendError> {
    let usual = [0, 8, 0x20000, 0x20008, 0xffff_ffff];
    let differs =
        |value| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value);
    SeccompRule::new(usual.into_iter().map(differs).collect::<Result<_, _>>()?)
}

/// As root and without no_new_privs, as container runtimes do; the crate's own way sets that.
fn install(filter: &BpfProgram) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which outlives the call; seccompiler's instructions
    // are laid out as the kernel's struct sock_filter (its documentation says so).
    call(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    })
}

fn call(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
