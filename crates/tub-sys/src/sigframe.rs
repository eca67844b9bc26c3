//! The signal frame from which the kernel loads a thread's registers (x86-64).
//!
//! In: registers, mask, alternate stack, the address the frame will have. Out: its bytes. Pure.
//! Invariant: the frame's floating-point area lies on a 64-byte boundary.
//!
//! ```text
//!   address      rt_sigframe: return address, ucontext, siginfo     440 bytes
//!   + 440 → 64   xsave area as NT_X86_XSTATE gave it                n bytes
//!   + n          FP_XSTATE_MAGIC2                                   4 bytes
//! ```
//!
//! KERNEL(since 2.6.30): arch/x86/include/uapi/asm/sigcontext.h, arch/x86/kernel/fpu/signal.c.

/// Alignment that a [`SignalFrame`] needs.
pub const SIGNAL_FRAME_ALIGN: usize = 64;
const FRAME_BYTES: usize = 440;
const FPSTATE_OFFSET: usize = 448;
/// Where software may leave its note in the legacy part of the area.
const SW_RESERVED: usize = 464;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
/// The component of AMX's tiles in an xsave area, which is its last one, and how many bytes it has
/// (Intel SDM vol. 1, 13.5.11: XTILEDATA).
const TILES: u64 = 1 << 18;
const TILES_BYTES: usize = 8192;
/// Which components an xsave area holds (Intel SDM vol. 1, 13.4.2: XSTATE_BV).
const HELD: usize = 512;
/// UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS.
const UC_FLAGS: u64 = 7;

/// What `rt_sigreturn(2)` is to load.
#[derive(Clone, Copy, Debug)]
pub struct SignalFrame<'a> {
    /// Address that stands where a handler's return would find it.
    pub return_address: u64,
    /// `struct user_regs_struct`, 27 words in the order of `sys/user.h`.
    pub general: [u64; 27],
    /// The uncompacted xsave area, as [`crate::ptrace_xstate`] gives it.
    pub xsave: &'a [u8],
    /// Blocked signals.
    pub signal_mask: u64,
    /// Address, flags and size of the alternate stack. Flags that mean nothing leave it as it is
    /// (KERNEL: `restore_altstack` squashes every error but EFAULT, kernel/signal.c).
    pub alternate_stack: (u64, i32, u64),
}

impl SignalFrame<'_> {
    /// Flags of an alternate stack that leave the thread's own one in force.
    pub const SAME_ALTERNATE_STACK: (u64, i32, u64) = (0, 5, 0);

    /// The most bytes of a frame with an xsave area of that many.
    pub const fn bytes(xsave: usize) -> usize {
        FPSTATE_OFFSET + xsave + 4
    }

    /// The frame, to be placed at `address`, a multiple of [`SIGNAL_FRAME_ALIGN`].
    pub fn at(&self, address: u64) -> Vec<u8> {
        build(self, address)
    }
}

/// Whether an xsave area, as [`crate::ptrace_xstate`] gives it, holds tiles of AMX.
pub fn holds_tiles(xsave: &[u8]) -> bool {
    word_at(xsave, HELD) & TILES != 0
}

/// The part of an area that a thread may be given which has never asked for AMX; and all that needs to be
/// kept of one that holds no tiles, since that is a quarter of what ptrace gives.
///
/// KERNEL(since 5.16): ptrace gives the area with room for tiles to whom it shows a thread, but a frame that is
/// larger than what the thread itself may use is taken for one with nothing but the legacy part
/// (`check_xstate_in_sigframe`, arch/x86/kernel/fpu/signal.c), and everything wider than SSE is lost.
pub fn without_room_for_tiles(xsave: &[u8]) -> &[u8] {
    let features = word_at(xsave, SW_RESERVED);
    if features & TILES == 0 || holds_tiles(xsave) {
        return xsave;
    }
    let rest = xsave.len().checked_sub(TILES_BYTES).filter(|rest| *rest >= HELD + 64);
    rest.map_or(xsave, |rest| &xsave[..rest])
}

fn word_at(area: &[u8], at: usize) -> u64 {
    let word = area.get(at..).and_then(|rest| rest.first_chunk::<8>());
    word.map_or(0, |word| u64::from_le_bytes(*word))
}

fn build(thread: &SignalFrame<'_>, address: u64) -> Vec<u8> {
    let xsave = without_room_for_tiles(thread.xsave);
    let [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        _orig_rax,
        rip,
        cs,
        eflags,
        rsp,
        ss,
        ..,
    ] = thread.general;
    let (stack, stack_flags, stack_bytes) = thread.alternate_stack;
    let mut frame = Vec::with_capacity(SignalFrame::bytes(xsave.len()));
    let mut word = |value: u64| frame.extend_from_slice(&value.to_le_bytes());
    word(thread.return_address);
    word(UC_FLAGS);
    word(0); // uc_link
    word(stack);
    word(u64::from(stack_flags.cast_unsigned()));
    word(stack_bytes);
    for register in
        [r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags]
    {
        word(register);
    }
    // cs, gs, fs, ss as 16-bit numbers; gs and fs are 0 in 64-bit mode.
    word((cs & 0xffff) | (ss & 0xffff) << 48);
    for _ in ["err", "trapno", "oldmask", "cr2"] {
        word(0);
    }
    word(address + FPSTATE_OFFSET as u64);
    for _ in 0..8 {
        word(0); // reserved1
    }
    word(thread.signal_mask);
    frame.resize(FRAME_BYTES, 0); // siginfo: not read
    frame.resize(FPSTATE_OFFSET, 0);
    frame.extend_from_slice(xsave);
    if xsave.len() >= SW_RESERVED + 48 {
        note(&mut frame[FPSTATE_OFFSET..], xsave.len());
    }
    frame.extend_from_slice(&FP_XSTATE_MAGIC2.to_le_bytes());
    frame
}

/// Leaves the note by which the kernel knows that more than the legacy part is there. The features
/// stand where ptrace has left XCR0 already (arch/x86/kernel/fpu/xstate.c), 8 bytes on.
fn note(area: &mut [u8], len: usize) {
    let mut features = word_at(area, SW_RESERVED);
    if !holds_tiles(area) {
        features &= !TILES;
    }
    let size = u32::try_from(len).unwrap_or(u32::MAX);
    let note = &mut area[SW_RESERVED..SW_RESERVED + 48];
    note.fill(0);
    note[0..4].copy_from_slice(&FP_XSTATE_MAGIC1.to_le_bytes());
    note[4..8].copy_from_slice(&(size + 4).to_le_bytes());
    note[8..16].copy_from_slice(&features.to_le_bytes());
    note[16..20].copy_from_slice(&size.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_has_the_kernels_layout() {
        let mut general = [0; 27];
        general[16] = 0x1234; // rip
        general[19] = 0x5678; // rsp
        let mut xsave = vec![0u8; 2432];
        xsave[SW_RESERVED..SW_RESERVED + 8].copy_from_slice(&0xe7u64.to_le_bytes());
        let thread = SignalFrame {
            return_address: 0x9abc,
            general,
            xsave: &xsave,
            signal_mask: 0xabcd,
            alternate_stack: (0, 0, 0),
        };
        let frame = thread.at(0x1000);
        let word = |at: usize| u64::from_le_bytes(frame[at..at + 8].try_into().unwrap());
        assert_eq!(frame.len(), SignalFrame::bytes(2432));
        assert_eq!(word(0), 0x9abc);
        // Offsets as `offsetof` gives them for struct rt_sigframe on x86-64.
        assert_eq!(word(8), UC_FLAGS);
        assert_eq!(word(48 + 15 * 8), 0x5678);
        assert_eq!(word(48 + 16 * 8), 0x1234);
        assert_eq!(word(48 + 184), 0x1000 + FPSTATE_OFFSET as u64);
        assert_eq!(word(304), 0xabcd);
        assert_eq!(word(FPSTATE_OFFSET + SW_RESERVED + 8), 0xe7);
    }

    #[test]
    fn a_frame_has_room_for_tiles_only_if_there_are_any() {
        let mut xsave = vec![0u8; 2816 + TILES_BYTES];
        xsave[SW_RESERVED..SW_RESERVED + 8].copy_from_slice(&0x602e7u64.to_le_bytes());
        let frame = |xsave: &[u8]| {
            let thread = SignalFrame {
                return_address: 0,
                general: [0; 27],
                xsave,
                signal_mask: 0,
                alternate_stack: (0, 0, 0),
            };
            let frame = thread.at(0x1000);
            let note = FPSTATE_OFFSET + SW_RESERVED;
            let size = u32::from_le_bytes(frame[note + 16..note + 20].try_into().unwrap());
            (frame.len(), word_at(&frame, note + 8), size)
        };
        assert_eq!(frame(&xsave), (SignalFrame::bytes(2816), 0x202e7, 2816));
        // Bit 18 of XSTATE_BV.
        xsave[HELD + 2] = 4;
        assert!(holds_tiles(&xsave));
        assert_eq!(frame(&xsave), (SignalFrame::bytes(11008), 0x602e7, 11008));
    }
}
