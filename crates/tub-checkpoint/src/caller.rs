//! The main thread of a frozen process, borrowed to ask about it.
//!
//! In: a frozen process, system calls. Out: what they gave. Invariant: the scratch page is gone and the
//! thread is as it was once it is given back.
//! Not here: which questions are asked (`collect`, `state`, `files`).

use crate::home::Resting;
use crate::survey::bytes;
use crate::{Error, Result, Survey, home, memory};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use tub_model::{AlternateStack, Lock};
use tub_sys::{Errno, UnixDiag};
use tub_tracee::{CallSite, Frozen, RemoteCalls, StoppedThread, WayHome};
use tub_units::{AddrRange, HostPid, PAGE_BYTES, RemoteAddr};

/// The main thread, borrowed to ask about the process, with a scratch page of its memory.
pub(crate) struct Caller<'a> {
    /// Its calls.
    pub(crate) calls: RemoteCalls<'a>,
    /// What the thread goes on with.
    pub(crate) resting: Resting,
    /// The scratch page, and behind it the places of other threads.
    pub(crate) scratch: RemoteAddr,
    places: u64,
    pid: HostPid,
    diag: Option<HashMap<u64, UnixDiag>>,
}

impl<'a> Caller<'a> {
    /// Borrows `main`, and maps the scratch page.
    pub(crate) fn begin(
        frozen: &'a Frozen,
        survey: &Survey,
        main: StoppedThread,
        site: CallSite,
        resting: Resting,
    ) -> Result<Self> {
        let pid = frozen.pid();
        let tracee = |source| Error::Tracee { pid, source };
        let frame_bytes = WayHome::bytes(main.xsave().map_err(tracee)?.len());
        let way_home = home::on_the_main_stack(frozen, survey, resting.at_home, frame_bytes);
        let mut calls = frozen.remote(main, site, way_home).map_err(tracee)?;
        let rights = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let mut scratch = |places| {
            let args = [0, scratch_bytes(places), rights, flags, u64::MAX, 0];
            let at = ask(&mut calls, "a scratch page", libc::SYS_mmap, args, pid)?;
            Ok((RemoteAddr(at), places))
        };
        let others = frozen.threads().len() as u64 - 1;
        let (scratch, places) = match scratch(others.min(PLACES_MAX)) {
            // A limit of its own (RLIMIT_AS, or RLIMIT_MEMLOCK after mlockall(2)) may leave room for one.
            Err(Error::Remote { .. }) if others > 1 => scratch(1)?,
            other => other?,
        };
        Ok(Self { calls, resting, scratch, places, pid, diag: None })
    }

    /// Where other threads answer and have their ways home, as many as there is room for at once.
    pub(crate) fn places(&self) -> impl ExactSizeIterator<Item = Place> + use<> {
        let first = self.scratch.0 + PAGE_BYTES;
        (0..usize::try_from(self.places).unwrap_or(0)).map(move |index| {
            let end = first + (index as u64 + 1) * PLACE_BYTES;
            let answers = end - OwnAnswers::BYTES;
            Place { answers: RemoteAddr(answers), top: answers }
        })
    }

    /// Makes a call that must not fail.
    pub(crate) fn ask(&mut self, what: &str, number: i64, args: [u64; 6]) -> Result<u64> {
        ask(&mut self.calls, what, number, args, self.pid)
    }

    /// A call whose refusal is an answer.
    pub(crate) fn attempt(
        &mut self,
        number: i64,
        args: [u64; 6],
    ) -> Result<std::result::Result<u64, tub_sys::Errno>> {
        let pid = self.pid;
        self.calls.call(number, args).map_err(|source| Error::Tracee { pid, source })
    }

    /// Asks for a number that is the call's result; `None` where the kernel does not know the
    /// question.
    pub(crate) fn ask_if_known(&mut self, number: i64, args: [u64; 6]) -> Result<Option<u32>> {
        Ok(self.attempt(number, args)?.ok().and_then(|answer| u32::try_from(answer).ok()))
    }

    /// Words at the start of the scratch page.
    pub(crate) fn words<const N: usize>(&self) -> Result<[u64; N]> {
        read_words(self.calls.process(), self.scratch)
    }

    /// Whether the process locks every new mapping: the kernel shows it nowhere, but the scratch
    /// page is such a mapping.
    pub(crate) fn lock_future(&self, survey: &Survey) -> Result<Lock> {
        let path = format!("/proc/{}/status", self.pid);
        let malformed = |source| Error::Malformed { path: path.clone(), source };
        let now = tub_procfs::status::parse(&bytes(&path)?).map_err(malformed)?;
        if now.vm_lck_bytes <= survey.status.vm_lck_bytes {
            return Ok(Lock::None);
        }
        let mappings = crate::survey::mappings(self.pid)?;
        let scratch = mappings.iter().find(|record| record.map.range.contains(self.scratch.0));
        Ok(scratch.map_or(Lock::None, memory::lock))
    }

    /// The pages of a mapping of shared memory that are there, whoever has touched them
    /// (mincore(2)).
    pub(crate) fn resident(&mut self, range: AddrRange) -> Result<Vec<AddrRange>> {
        let mut found = Vec::new();
        let mut answers = [0u8; 2048];
        let mut at = range.start();
        while at < range.end() {
            let pages = (range.end() - at).div_ceil(PAGE_BYTES).min(answers.len() as u64);
            let args = [at, pages * PAGE_BYTES, self.scratch.0, 0, 0, 0];
            self.ask("pages of shared memory", libc::SYS_mincore, args)?;
            let process = self.calls.process();
            let tracee = |source| Error::Tracee { pid: self.pid, source };
            process.read(self.scratch, &mut answers).map_err(tracee)?;
            let pages_here = usize::try_from(pages).unwrap_or(0);
            for (page, _) in
                (0..).zip(&answers[..pages_here]).filter(|(_, answer)| *answer & 1 == 1)
            {
                found.extend(AddrRange::with_len(at + page * PAGE_BYTES, PAGE_BYTES));
            }
            at += pages * PAGE_BYTES;
        }
        Ok(memory::join(found.into_iter()))
    }

    /// Gives the scratch page and the thread back.
    pub(crate) fn end(mut self) -> Result<()> {
        let args = [self.scratch.0, scratch_bytes(self.places), 0, 0, 0, 0];
        self.ask("end of the scratch page", libc::SYS_munmap, args)?;
        let pid = self.pid;
        self.calls.end().map_err(|source| Error::Tracee { pid, source })
    }

    /// `timerfd_gettime`: nanoseconds until it next fires, and its period.
    pub(crate) fn timerfd_time(&mut self, fd: i32) -> Result<(u64, u64)> {
        let args = [u64::from(fd.cast_unsigned()), self.scratch.0, 0, 0, 0, 0];
        self.ask("timer", libc::SYS_timerfd_gettime, args)?;
        let [every_s, every_ns, in_s, in_ns] = self.words()?;
        Ok((in_s * 1_000_000_000 + in_ns, every_s * 1_000_000_000 + every_ns))
    }

    /// Makes a call that works on `memory`: it gets the address of a copy, which is read back.
    pub(crate) fn call_on(
        &mut self,
        number: i64,
        memory: &mut [u8],
        args: impl FnOnce(u64) -> [u64; 6],
    ) -> Result<std::result::Result<u64, Errno>> {
        let pid = self.pid;
        let tracee = |source| Error::Tracee { pid, source };
        debug_assert!(memory.len() as u64 <= PAGE_BYTES, "the scratch page is all there is");
        self.calls.process().write(self.scratch, memory).map_err(tracee)?;
        let result = self.calls.call(number, args(self.scratch.0)).map_err(tracee)?;
        self.calls.process().read(self.scratch, memory).map_err(tracee)?;
        Ok(result)
    }

    /// All that is in a file that is open for reading, whose position stays.
    pub(crate) fn content(&mut self, fd: i32) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            let number = u64::from(fd.cast_unsigned());
            let args = [number, self.scratch.0, PAGE_BYTES, content.len() as u64, 0, 0];
            let read = self.ask("content of a file", libc::SYS_pread64, args)?;
            if read == 0 {
                return Ok(content);
            }
            let start = content.len();
            content.resize(start + usize::try_from(read).unwrap_or(0), 0);
            let process = self.calls.process();
            let tracee = |source| Error::Tracee { pid: self.pid, source };
            process.read(self.scratch, &mut content[start..]).map_err(tracee)?;
        }
    }

    /// Maps memory of its own for a call that needs more than a page, lets `use_it`, and unmaps it.
    pub(crate) fn with_memory<T>(
        &mut self,
        bytes: u64,
        use_it: impl FnOnce(&mut Self, RemoteAddr) -> Result<T>,
    ) -> Result<T> {
        let rights = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let args = [0, bytes, rights, flags, u64::MAX, 0];
        let at = RemoteAddr(self.ask("memory", libc::SYS_mmap, args)?);
        let result = use_it(self, at);
        self.ask("end of memory", libc::SYS_munmap, [at.0, bytes, 0, 0, 0, 0])?;
        result
    }

    /// Reads its memory.
    pub(crate) fn read(&self, at: RemoteAddr, bytes: &mut [u8]) -> Result<()> {
        let tracee = |source| Error::Tracee { pid: self.pid, source };
        self.calls.process().read(at, bytes).map_err(tracee)
    }

    /// Where the memory of [`Self::call_on`] lies.
    pub(crate) fn scratch_address(&self) -> u64 {
        self.scratch.0
    }

    /// The process.
    pub(crate) fn pid(&self) -> HostPid {
        self.pid
    }

    /// What the kernel's diagnosis says of one of its unix sockets.
    pub(crate) fn unix_diag(&mut self, ino: u64) -> Result<UnixDiag> {
        if self.diag.is_none() {
            let socket = self.sock_diag_socket()?;
            let sockets = tub_sys::unix_sockets(socket.as_fd()).map_err(|e| self.no_peers(e))?;
            self.diag = Some(sockets.into_iter().collect());
        }
        let known = self.diag.as_ref().and_then(|diag| diag.get(&ino).cloned());
        known.ok_or_else(|| self.no_peers(Errno::EXDEV))
    }

    /// A socket to ask about sockets, in the network namespace of the process: only its own are
    /// listed there. Where that is not ours, the process makes the socket and we take a copy.
    fn sock_diag_socket(&mut self) -> Result<OwnedFd> {
        let namespace = |who: String| std::fs::read_link(format!("/proc/{who}/ns/net")).ok();
        if namespace("self".to_owned()) == namespace(self.pid.to_string()) {
            return tub_sys::sock_diag_socket().map_err(|e| self.no_peers(e));
        }
        let [family, kind, protocol] =
            tub_sys::SOCK_DIAG_SOCKET.map(|number| u64::from(number.cast_unsigned()));
        let args = [family, kind, protocol, 0, 0, 0];
        let fd = self.ask("a socket to ask about sockets", libc::SYS_socket, args)?;
        let copy = tub_sys::duplicate_of(self.pid, i32::try_from(fd).unwrap_or(-1));
        self.ask("its end", libc::SYS_close, [fd, 0, 0, 0, 0, 0])?;
        copy.map_err(|e| self.no_peers(e))
    }

    fn no_peers(&self, source: Errno) -> Error {
        Error::Remote { what: "peers of unix sockets".to_owned(), pid: self.pid, source }
    }
}

/// More threads than that take turns: what is gained by asking them side by side is gained with as many.
const PLACES_MAX: u64 = 32;

/// For a way home, and below its top only as many pages are touched as it takes.
const PLACE_BYTES: u64 = (WayHome::BYTES_MAX + OwnAnswers::BYTES).next_multiple_of(PAGE_BYTES);

const fn scratch_bytes(places: u64) -> u64 {
    PAGE_BYTES + places * PLACE_BYTES
}

/// A thread's own part of the scratch memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Where the kernel puts its [`OwnAnswers`].
    pub(crate) answers: RemoteAddr,
    /// The end of the room for its way home.
    pub(crate) top: u64,
}

/// What only the thread itself can tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnAnswers {
    pub(crate) signal_mask: u64,
    pub(crate) clear_child_tid: RemoteAddr,
    pub(crate) alternate_stack: AlternateStack,
    pub(crate) timer_slack_ns: u64,
}

impl OwnAnswers {
    /// A pointer, and a `stack_t` (sigaltstack(2)).
    const BYTES: u64 = 8 + 24;

    /// Asks borrowed threads, side by side. `places` says where each may answer.
    pub(crate) fn of_each(
        borrowed: &mut [RemoteCalls<'_>],
        places: &[RemoteAddr],
        pid: HostPid,
    ) -> Result<Vec<Self>> {
        // KERNEL(since 3.5, with CONFIG_CHECKPOINT_RESTORE).
        const PR_GET_TID_ADDRESS: u64 = 40;
        const PR_GET_TIMERSLACK: u64 = 30;
        let mut ask = |what: &str, number, args: &dyn Fn(u64) -> [u64; 6]| {
            let answers = RemoteCalls::call_each(borrowed, number, |index| args(places[index].0));
            let answers = answers.map_err(|source| Error::Tracee { pid, source })?;
            let failed = |source| Error::Remote { what: what.to_owned(), pid, source };
            answers.into_iter().map(|one| one.map_err(failed)).collect::<Result<Vec<u64>>>()
        };
        let args = |at| [PR_GET_TID_ADDRESS, at, 0, 0, 0, 0];
        ask("address of the thread id", libc::SYS_prctl, &args)?;
        let args = |at| [0, at + 8, 0, 0, 0, 0];
        ask("alternate stack", libc::SYS_sigaltstack, &args)?;
        // Reading it from /proc takes CAP_SYS_NICE.
        let args = |_| [PR_GET_TIMERSLACK, 0, 0, 0, 0, 0];
        let slacks = ask("timer slack", libc::SYS_prctl, &args)?;
        let told = borrowed.iter().zip(places).zip(slacks);
        told.map(|((calls, place), timer_slack_ns)| {
            let [clear_child_tid, address, flags, size_bytes] =
                read_words(calls.process(), *place)?;
            let flags = low_half(flags).cast_signed();
            Ok(Self {
                signal_mask: calls.saved_signal_mask(),
                clear_child_tid: RemoteAddr(clear_child_tid),
                alternate_stack: AlternateStack { address, flags, size_bytes },
                timer_slack_ns,
            })
        })
        .collect()
    }
}

/// Makes a call of a borrowed thread that must not fail; `what` it is about.
pub(crate) fn ask(
    calls: &mut RemoteCalls<'_>,
    what: &str,
    number: i64,
    args: [u64; 6],
    pid: HostPid,
) -> Result<u64> {
    calls
        .call(number, args)
        .map_err(|source| Error::Tracee { pid, source })?
        .map_err(|source| Error::Remote { what: what.to_owned(), pid, source })
}

/// Words of a process.
pub(crate) fn read_words<const N: usize>(frozen: &Frozen, at: RemoteAddr) -> Result<[u64; N]> {
    let mut bytes = [[0; 8]; N];
    frozen
        .read(at, bytes.as_flattened_mut())
        .map_err(|source| Error::Tracee { pid: frozen.pid(), source })?;
    Ok(bytes.map(u64::from_ne_bytes))
}

/// A C int that the kernel has written to the start of a word.
pub(crate) fn low_half(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
