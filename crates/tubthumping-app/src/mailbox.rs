//! The mailbox: memory that the engine writes to while this process is frozen, or on its way
//! into a copy.
//!
//! In: nothing, then bytes that appear between two instructions. Out: a [`Letter`].
//! Invariant: memory that another process writes to is only ever read through an atomic or
//! copied, never borrowed.
//! Not here: how a letter is written (`tub_control::mailbox`).

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tub_control::mailbox::{self, Failed, Letter, MAILBOX_BYTES, WAITING};
use tub_control::{MailboxPlace, Witness, unannounced};

/// How often the wait looks up by itself: a futex that was moved into a copy has no waker.
const SLICE: Duration = Duration::from_millis(100);

/// One mailbox, used once.
#[derive(Debug)]
pub struct Mailbox {
    memory: NonNull<u8>,
    /// Of the process that offered it.
    witness: Witness,
}

// SAFETY: the memory is owned by this value alone and is reached through atomics and copies only.
unsafe impl Send for Mailbox {}

impl Mailbox {
    /// Fresh memory, all zeros. A used mailbox cannot be cleared instead: in a copy, MADV_DONTNEED
    /// would bring the image's bytes back.
    ///
    /// # Errors
    /// That of mmap(2).
    pub fn new() -> Result<Self, std::io::Error> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let memory =
            unsafe { libc::mmap(ptr::null_mut(), MAILBOX_BYTES, protection, flags, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).expect("mmap never maps address zero by itself");
        Ok(Self { memory, witness: Witness::of_this_process() })
    }

    /// Where it lies, for the engine.
    pub fn place(&self) -> MailboxPlace {
        MailboxPlace { address: self.memory.as_ptr() as u64, bytes: MAILBOX_BYTES as u64 }
    }

    fn state(&self) -> &AtomicU32 {
        let state = self.memory.as_ptr().cast::<u32>();
        // SAFETY: the first word of a mapping is aligned, lives as long as `self`, and is reached
        // through this atomic only.
        unsafe { AtomicU32::from_ptr(state) }
    }

    /// Waits for a letter, for at most `deadline`. A copy that gets none, since somebody else has
    /// restored it, writes it itself: it looks after each slice, and at once where the restore ends the
    /// wait, which the kernel cannot restart in another process.
    pub fn wait(self, deadline: Duration) -> Letter {
        self.wait_while(deadline, || None)
    }

    /// The same; `gone` is asked after each slice, and knows why there will be no letter any more.
    pub fn wait_while(
        self,
        deadline: Duration,
        mut gone: impl FnMut() -> Option<String>,
    ) -> Letter {
        let start = Instant::now();
        let failed = |message| Letter::Failed(Failed { message, failures: Vec::new() });
        while self.state().load(Ordering::Acquire) == WAITING {
            if self.witness.is_a_copy_now()
                && let Ok(restored) = unannounced()
            {
                let (environment, arguments, data) = Default::default();
                return Letter::Restored { restored, environment, arguments, data };
            }
            let is_over = start.elapsed() > deadline;
            // In this order: who was stopped for longer than its deadline has its letter by now.
            if is_over && self.state().load(Ordering::Acquire) == WAITING {
                return failed(format!(
                    "the engine went away: no word from it within {deadline:?}"
                ));
            }
            self.sleep();
            // Asked before the state is looked at again: a letter may be its last deed.
            if let Some(message) = gone()
                && self.state().load(Ordering::Acquire) == WAITING
                && !self.witness.is_a_copy_now()
            {
                return failed(message);
            }
        }
        mailbox::decode(&self.copy()).unwrap_or_else(|error| {
            failed(format!("the engine left a letter that cannot be read: {error}"))
        })
    }

    /// Sleeps until the state changes, or for one slice. Whatever ends it, the caller looks.
    fn sleep(&self) {
        let slice = libc::timespec { tv_sec: 0, tv_nsec: SLICE.subsec_nanos().into() };
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        let state = self.state().as_ptr();
        // SAFETY: futex(2), FUTEX_WAIT: an aligned word, the value it should have, and a timeout
        // that lives during the call.
        unsafe { libc::syscall(libc::SYS_futex, state, operation, WAITING, &raw const slice) };
    }

    /// The letter alone: a page that is not touched costs a copy nothing on its way back.
    fn copy(&self) -> Vec<u8> {
        let header = self.bytes(mailbox::HEADER_BYTES);
        let length = mailbox::letter_bytes(&header).unwrap_or(MAILBOX_BYTES);
        self.bytes(length.min(MAILBOX_BYTES))
    }

    /// The first `length` bytes, which are at most MAILBOX_BYTES.
    fn bytes(&self, length: usize) -> Vec<u8> {
        assert!(length <= MAILBOX_BYTES, "both callers see to it");
        let mut bytes = vec![0; length];
        // SAFETY: the mapping has MAILBOX_BYTES bytes, the vector `length`. The engine writes while
        // all threads are stopped, or before it changes the state, and not again afterwards.
        unsafe { ptr::copy_nonoverlapping(self.memory.as_ptr(), bytes.as_mut_ptr(), length) };
        bytes
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and nothing borrows from it any more. Where it
        // fails, a megabyte of address space stays.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), MAILBOX_BYTES) };
    }
}
