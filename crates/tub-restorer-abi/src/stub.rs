//! The few instructions by which a thread makes an interrupted wait again, for what is left of it.
//!
//! In: which register holds the time, what the program had put there, where its call returns to.
//! Out: the bytes, or what they say. Pure.
//!
//! ```text
//!    0  0f 05                syscall
//!    2  REX b8+r  imm64      mov   register, original
//!   12  ff 25 00 00 00 00    jmp   [rip + 0]
//!   18  address              where the program's own call returns to
//!   26  6 bytes of padding
//! ```
//!
//! A program may rely on all registers but rax, rcx and r11 being what they were before a system call
//! (Intel SDM, SYSCALL; System V psABI for x86-64, A.2.1), so the time that stands in for the original
//! one must not stay. A later checkpoint finds threads that wait here, and reads the bytes to know
//! where they really are.

/// Bytes of one stub, and its alignment.
pub const STUB_BYTES: usize = 32;

const RETURN: core::ops::Range<usize> = 18..26;
const ORIGINAL: core::ops::Range<usize> = 4..12;

/// Offset of the instruction after the system call.
pub const AFTER_CALL: u64 = 2;

/// What a stub says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stub {
    /// The register, as an index into `struct user_regs_struct` (sys/user.h).
    pub register: u32,
    /// What the program had put there.
    pub original: u64,
    /// Where its system call returns to.
    pub return_to: u64,
}

impl Stub {
    /// The bytes; none for a register that no system call takes its time from.
    pub fn to_bytes(self) -> Option<[u8; STUB_BYTES]> {
        let mut code = [0xcc; STUB_BYTES];
        code[0..2].copy_from_slice(&[0x0f, 0x05]);
        code[2..4].copy_from_slice(&load(self.register)?);
        code[ORIGINAL].copy_from_slice(&self.original.to_le_bytes());
        code[12..18].copy_from_slice(&[0xff, 0x25, 0, 0, 0, 0]);
        code[RETURN].copy_from_slice(&self.return_to.to_le_bytes());
        Some(code)
    }

    /// Reads the bytes back; `None` where they are no stub.
    pub fn from_bytes(code: &[u8; STUB_BYTES]) -> Option<Self> {
        let word = |at: core::ops::Range<usize>| {
            let mut word = [0; 8];
            word.copy_from_slice(&code[at]);
            u64::from_le_bytes(word)
        };
        let register = TIME_REGISTERS.into_iter().find(|&r| load(r) == Some([code[2], code[3]]))?;
        let stub = Self { register, original: word(ORIGINAL), return_to: word(RETURN) };
        (stub.to_bytes().as_ref() == Some(code)).then_some(stub)
    }
}

/// r10, rdx, rdi: the registers that poll, nanosleep, futex and the like take a time from.
const TIME_REGISTERS: [u32; 3] = [7, 12, 14];

/// `mov register, imm64` (Intel SDM vol. 2, MOV): REX prefix and opcode.
fn load(register: u32) -> Option<[u8; 2]> {
    match register {
        7 => Some([0x49, 0xba]),
        12 => Some([0x48, 0xba]),
        14 => Some([0x48, 0xbf]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for register in TIME_REGISTERS {
            let stub = Stub { register, original: u64::MAX - 7, return_to: 0x7f00_1234_5678 };
            assert_eq!(Stub::from_bytes(&stub.to_bytes().unwrap()), Some(stub));
        }
        assert_eq!(Stub { register: 10, original: 0, return_to: 0 }.to_bytes(), None);
    }

    #[test]
    fn what_is_no_stub_is_none() {
        let good = Stub { register: 14, original: 1, return_to: 2 }.to_bytes().unwrap();
        for at in (0..4).chain(12..18).chain(26..32) {
            let mut bad = good;
            bad[at] ^= 1;
            assert_eq!(Stub::from_bytes(&bad), None, "{at}");
        }
    }
}
