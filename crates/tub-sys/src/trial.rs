//! Calls made only to find out whether they would work.
//!
//! In: next to nothing. Out: yes, or the kernel's reason. Invariant: what was mapped, made or
//! started for a trial is gone when it returns.
//! Not here: what an answer means (`tub-host`).

use crate::process::CloneArgs;
use crate::{Errno, check};
use std::os::fd::{AsRawFd, BorrowedFd};
use tub_units::{NsPid, PAGE_BYTES};

/// `mmap(PROT_READ | PROT_EXEC, MAP_PRIVATE, file)` of one page; nothing of it is executed.
///
/// # Errors
///
/// EPERM on a file system that is mounted noexec.
pub fn try_executable_mapping(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let len = usize::try_from(PAGE_BYTES).map_err(|_| Errno::ENOMEM)?;
    let rights = libc::PROT_READ | libc::PROT_EXEC;
    let (flags, fd) = (libc::MAP_PRIVATE, file.as_raw_fd());
    // SAFETY: the kernel chooses a free place, so no memory in use is touched.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), len, rights, flags, fd, 0) };
    if page == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: the page was mapped above, and nobody else knows of it.
    check(i64::from(unsafe { libc::munmap(page, len) })).map(drop)
}

/// `clone3(SIGCHLD, set_tid = pid)`: whether a child can be given the id
/// `pid` in our PID namespace. The child ends at once.
///
/// # Errors
///
/// As for [`crate::fork_with_pid`].
#[cfg(target_arch = "x86_64")]
pub fn try_chosen_id(pid: NsPid) -> Result<(), Errno> {
    use std::arch::asm;
    let wanted = pid.0;
    let args = CloneArgs {
        exit_signal: libc::SIGCHLD as u64,
        set_tid: &raw const wanted as u64,
        set_tid_size: 1,
        ..CloneArgs::default()
    };
    let mut result = libc::SYS_clone3;
    // SAFETY: the child has memory and stack of its own (no CLONE_VM), and makes nothing but the
    // system call exit(0); no lock of this process matters to it.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov eax, 60",
            "xor edi, edi",
            "syscall",
            "ud2",
            "2:",
            inlateout("rax") result,
            in("rdi") &raw const args,
            in("rsi") size_of::<CloneArgs>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    if result < 0 {
        return Err(Errno::from_raw(i32::try_from(-result).unwrap_or(libc::EIO)));
    }
    let child = i32::try_from(result).map_err(|_| Errno::ESRCH)?;
    let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None);
    if child == wanted { Ok(()) } else { Err(Errno::EINVAL) }
}

/// On other architectures: not tried (design decision E15).
#[cfg(not(target_arch = "x86_64"))]
pub fn try_chosen_id(_: NsPid) -> Result<(), Errno> {
    let _ = CloneArgs::default();
    Err(Errno::EOPNOTSUPP)
}

/// `arch_prctl(ARCH_MAP_VDSO_64, …)`: whether the vdso could be mapped where a plan wants it. A
/// process that has one already, as every process does, is told EEXIST.
///
/// # References
///
/// KERNEL(since 4.8, with CONFIG_CHECKPOINT_RESTORE): arch/x86/kernel/process_64.c.
#[cfg(target_arch = "x86_64")]
pub fn try_vdso_mapping() -> Result<(), Errno> {
    const ARCH_MAP_VDSO_64: i32 = 0x2003;
    // SAFETY: takes two numbers; either nothing is mapped, or a second vdso where nothing is.
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_MAP_VDSO_64, 0) };
    match check(result) {
        Err(Errno::EEXIST) | Ok(_) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// On other architectures there is no such call.
#[cfg(not(target_arch = "x86_64"))]
pub fn try_vdso_mapping() -> Result<(), Errno> {
    Err(Errno::ENOSYS)
}

/// The bounds of a process's memory, as `PR_SET_MM_MAP` takes them (struct prctl_mm_map).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct RawMmMap {
    /// Code, data, heap and stack: start_code, end_code, start_data, end_data, start_brk, brk,
    /// start_stack, arg_start, arg_end, env_start, env_end.
    pub bounds: [u64; 11],
    /// No auxiliary vector: the old one stays.
    pub auxv: u64,
    /// Its size.
    pub auxv_bytes: u32,
    /// A descriptor of the executable, or -1.
    pub exe_fd: i32,
}

/// `prctl(PR_SET_MM, PR_SET_MM_MAP, map)` of ourselves.
///
/// # Errors
///
/// EINVAL for bounds that are none or without CONFIG_CHECKPOINT_RESTORE; EPERM for an executable,
/// without CAP_CHECKPOINT_RESTORE.
pub fn set_own_bounds(map: &RawMmMap) -> Result<(), Errno> {
    const PR_SET_MM_MAP: u64 = 14;
    let len = size_of::<RawMmMap>();
    // SAFETY: the kernel reads `map`, and checks each bound. They are what /proc shows of this
    // process and where brk(2) goes on; nothing is mapped or unmapped.
    let result =
        unsafe { libc::prctl(libc::PR_SET_MM, PR_SET_MM_MAP, std::ptr::from_ref(map), len, 0u64) };
    check(i64::from(result)).map(drop)
}

/// `brk(0)`: where the heap ends.
pub fn own_brk() -> u64 {
    // SAFETY: an address below the heap's start changes nothing.
    let end = unsafe { libc::syscall(libc::SYS_brk, 0) };
    end.cast_unsigned()
}

/// `prctl(PR_SET_CHILD_SUBREAPER, …)`, left as it was.
pub fn try_subreaper() -> Result<(), Errno> {
    let mut old = 0i32;
    // SAFETY: the kernel writes an int.
    let got = unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut old) };
    check(i64::from(got))?;
    // SAFETY: takes a number, which is what it was.
    let set = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, old) };
    check(i64::from(set)).map(drop)
}
