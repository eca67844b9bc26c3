//! Where a held process can make system calls for us, and how it finds home without us.
//!
//! In: its executable mappings. Out: a [`CallSite`]. Invariant: only what the process has mapped
//! itself is used; nothing is written to its code.
//!
//! A borrowed thread has registers that are not its own. Should this program be killed at that
//! moment, the kernel lets the thread go on with them (KERNEL: `exit_ptrace`, kernel/ptrace.c), and
//! nobody is left to put them right. So the thread is borrowed in such a way that it goes home by
//! itself: it makes its call at a `syscall; ret`, returns into the few instructions by which every
//! signal handler ends, and `rt_sigreturn` loads the registers, the floating-point state and the
//! signal mask that it had. It is as if it had handled a signal.

use memchr::memmem;
use tub_units::{AddrRange, RemoteAddr};

/// An instruction `syscall`, and where possible what makes up a way home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallSite {
    /// Address of a `syscall`, followed by `ret` where there is a way home.
    pub(crate) syscall: RemoteAddr,
    /// Address of code that makes the call `rt_sigreturn`.
    pub(crate) sigreturn: Option<RemoteAddr>,
}

const SYSCALL: &[u8] = &[0x0f, 0x05];
const SYSCALL_RET: &[u8] = &[0x0f, 0x05, 0xc3];
/// `mov $15, %rax; syscall` and `mov $15, %eax; syscall`: glibc and musl have the first, compilers
/// that write their own the second (libc.a and libc.so.6 of glibc 2.36, Go 1.22's runtime).
const SIGRETURN: [&[u8]; 2] =
    [&[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05], &[0xb8, 15, 0, 0, 0, 0x0f, 0x05]];
/// More code than that is not searched: the process stands still meanwhile.
const SEARCH_BYTES_MAX: u64 = 64 << 20;
const CHUNK_BYTES: usize = 1 << 20;

impl CallSite {
    /// Looks for one in `executable` mappings, given with their names, which `read` reads: whether all
    /// that was wanted. `None` where there is not even a `syscall`.
    pub fn find<'a>(
        read: impl Fn(RemoteAddr, &mut [u8]) -> bool,
        executable: impl Iterator<Item = (AddrRange, &'a str)>,
    ) -> Option<Self> {
        let mut ranges: Vec<(AddrRange, u8)> =
            executable.map(|(range, name)| (range, likelihood(name))).collect();
        // The C library first, which nearly always has all of it.
        ranges.sort_by_key(|(_, rank)| *rank);
        let (mut any, mut with_ret, mut sigreturn) = (None, None, None);
        let mut budget = SEARCH_BYTES_MAX;
        let mut chunk = vec![0; CHUNK_BYTES];
        for (range, _) in ranges {
            let mut start = range.start();
            while start < range.end() && budget > 0 {
                let bytes = usize::try_from(range.end() - start).unwrap_or(CHUNK_BYTES);
                let code = &mut chunk[..bytes.min(CHUNK_BYTES)];
                budget = budget.saturating_sub(code.len() as u64);
                if !read(RemoteAddr(start), code) {
                    break;
                }
                let find = |what| Some(RemoteAddr(start + memmem::find(code, what)? as u64));
                any = any.or_else(|| find(SYSCALL));
                with_ret = with_ret.or_else(|| find(SYSCALL_RET));
                sigreturn = sigreturn.or_else(|| SIGRETURN.iter().find_map(|what| find(what)));
                if let (Some(syscall), Some(sigreturn)) = (with_ret, sigreturn) {
                    return Some(Self { syscall, sigreturn: Some(sigreturn) });
                }
                // The next chunk overlaps by what a pattern may be cut at.
                start += code.len() as u64;
                if start < range.end() {
                    start -= 16;
                }
            }
        }
        any.map(|syscall| Self { syscall, sigreturn: None })
    }

    /// Whether it is where it was found earlier, in `executable` mappings.
    pub fn is_there(
        &self,
        read: impl Fn(RemoteAddr, &mut [u8]) -> bool,
        executable: impl Iterator<Item = AddrRange> + Clone,
    ) -> bool {
        let is = |at: RemoteAddr, what: &[u8]| {
            let mut code = vec![0; what.len()];
            let mut ranges = executable.clone();
            ranges.any(|range| range.contains(at.0)) && read(at, &mut code) && code == what
        };
        match self.sigreturn {
            Some(sigreturn) => {
                is(self.syscall, SYSCALL_RET) && SIGRETURN.iter().any(|what| is(sigreturn, what))
            }
            None => is(self.syscall, SYSCALL),
        }
    }

    /// Whether a borrowed thread can go home by itself.
    pub fn has_way_home(&self) -> bool {
        self.sigreturn.is_some()
    }
}

/// The lower, the likelier.
fn likelihood(name: &str) -> u8 {
    let file = name.rsplit('/').next().unwrap_or(name);
    if file.starts_with("libc.so") || file.starts_with("libc-") || file.starts_with("ld-musl") {
        0
    } else if file.contains(".so") {
        3
    } else if name.starts_with('[') {
        // The vdso has a `syscall`, but nothing else of use.
        2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_comes_first() {
        let mut names = ["/x/libjvm.so", "[vdso]", "/usr/bin/java", "/lib/libc.so.6"];
        names.sort_by_key(|name| likelihood(name));
        assert_eq!(names, ["/lib/libc.so.6", "/usr/bin/java", "[vdso]", "/x/libjvm.so"]);
    }
}
