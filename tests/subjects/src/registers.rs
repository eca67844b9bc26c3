//! Registers: threads that hold known values in all of them, and go on computing in them, while
//! they are frozen.
//!
//! In: `nice`, if others need the processors. Out: differences.
//! Invariant: between loading and storing there is no call, so that the values can only have
//! survived in the registers themselves.

use crate::pattern;
use crate::stage::{Stage, say};
use crate::sys;
use crate::thread::{self, JoinHandle};
use std::arch::asm;
use std::hint::black_box;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Set once the checkpoint is over; the loops below spin on it.
static OVER: AtomicU64 = AtomicU64::new(0);

/// A tenth of the weight of others, so that a dozen spinning threads count like one; not the lowest of all,
/// since a thread has to run to be stopped.
const NICE: i32 = 10;

/// Threads that have loaded their registers, or are about to.
static SPINNING: AtomicU32 = AtomicU32::new(0);

/// What a spinning thread was told to hold, and what it held in the end.
type Held = (&'static str, Vec<u64>, Vec<u64>);

/// All register sets of x86-64 that the processor has.
pub(crate) fn registers(stage: &'static Stage) -> io::Result<()> {
    if stage.option(0) == Some("nice") {
        // Threads inherit it.
        sys::set_nice(NICE)?;
    }
    let mut holders: Vec<JoinHandle<Held>> = vec![
        thread::spawn(|| hold("general registers and flags", 13, 0x0cd5_u64, spin_general)),
        thread::spawn(|| hold("SSE registers", 32, 0, spin_sse)),
        thread::spawn(hold_x87),
        thread::spawn(hold_control_words),
    ];
    if std::is_x86_feature_detected!("avx") {
        holders.push(thread::spawn(|| hold("AVX registers", 64, 0, spin_avx)));
    } else {
        say("skipped: this processor has no AVX");
    }
    if std::is_x86_feature_detected!("avx512bw") {
        holders.push(thread::spawn(|| hold("AVX-512 registers", 256 + 7, 0, spin_avx512)));
    } else {
        say("skipped: this processor has no AVX-512");
    }
    let expected = u32::try_from(holders.len()).expect("a handful");
    let computing = thread::spawn(compute);
    let gs = thread::spawn(hold_gs);
    while SPINNING.load(Ordering::SeqCst) < expected + 2 {
        thread::yield_now();
    }

    stage.across()?;
    OVER.store(1, Ordering::SeqCst);

    for holder in holders {
        let (name, wanted, found) = holder.join().expect("holders do not panic");
        stage.same(name, &wanted, &found);
    }
    let (rounds, found) = computing.join().expect("computing does not panic");
    stage.same("floating point computation", &replay(rounds).to_bits(), &found.to_bits());
    let (wanted, found) = gs.join().expect("holding gs does not panic")?;
    stage.same("gs base", &wanted, &found);
    Ok(())
}

/// Lets `spin` hold `words` pattern words, the last of which is `extra` unless that is 0.
fn hold(name: &'static str, words: usize, extra: u64, spin: fn(&[u64], &mut [u64])) -> Held {
    let mut wanted = vec![0; words];
    pattern::fill(&mut wanted, u64::try_from(words).expect("small"));
    if extra != 0 {
        wanted[words - 1] = extra;
    }
    let mut found = vec![0; words];
    SPINNING.fetch_add(1, Ordering::SeqCst);
    spin(&wanted, &mut found);
    (name, wanted, found)
}

/// r8-r15, rax, rdx, rdi, rbp … and the flags. What the loop itself needs is rcx and rsi.
fn spin_general(wanted: &[u64], found: &mut [u64]) {
    assert_eq!((wanted.len(), found.len()), (13, 13));
    // 12 words for registers, the 13th for the flags: CF PF AF ZF SF OF and DF among them. The loop
    // waits by `jrcxz`, which leaves them alone. rbx and rbp are saved by hand because the
    // compiler reserves them.
    // SAFETY: reads 13 words of `wanted` and writes 13 of `found` (asserted), reads OVER; every
    // register written is declared or put back, and DF is cleared before Rust goes on.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "push r14",
            "push [rsi + 96]",
            "popfq",
            "mov rax, [rsi]",
            "mov rbx, [rsi + 8]",
            "mov rdx, [rsi + 16]",
            "mov rdi, [rsi + 24]",
            "mov rbp, [rsi + 32]",
            "mov r8, [rsi + 40]",
            "mov r9, [rsi + 48]",
            "mov r10, [rsi + 56]",
            "mov r11, [rsi + 64]",
            "mov r12, [rsi + 72]",
            "mov r13, [rsi + 80]",
            "mov r14, [rsi + 88]",
            "2:",
            "pause",
            "mov rcx, [r15]",
            "jrcxz 2b",
            // The address of `found` lies on the stack, below it the flags once they are pushed.
            "mov rsi, [rsp]",
            "mov [rsi], rax",
            "mov [rsi + 8], rbx",
            "mov [rsi + 16], rdx",
            "mov [rsi + 24], rdi",
            "mov [rsi + 32], rbp",
            "mov [rsi + 40], r8",
            "mov [rsi + 48], r9",
            "mov [rsi + 56], r10",
            "mov [rsi + 64], r11",
            "mov [rsi + 72], r12",
            "mov [rsi + 80], r13",
            "mov [rsi + 88], r14",
            "pushfq",
            "pop [rsi + 96]",
            "cld",
            "add rsp, 8",
            "pop rbp",
            "pop rbx",
            inout("r14") found.as_mut_ptr() => _,
            inout("rsi") wanted.as_ptr() => _,
            inout("r15") OVER.as_ptr() => _,
            out("rax") _, out("rcx") _, out("rdx") _, out("rdi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _,
        );
    }
    // IF, and whatever else the kernel forces on, is not ours to compare.
    const USER_FLAGS: u64 = 0x0cd5;
    found[12] &= USER_FLAGS;
}

fn spin_sse(wanted: &[u64], found: &mut [u64]) {
    assert_eq!((wanted.len(), found.len()), (32, 32));
    // SAFETY: reads 32 words of `wanted` and writes 32 of `found` (asserted), reads OVER; all
    // sixteen registers are declared.
    unsafe {
        asm!(
            "movdqu xmm0, [{wanted}]",
            "movdqu xmm1, [{wanted} + 16]",
            "movdqu xmm2, [{wanted} + 32]",
            "movdqu xmm3, [{wanted} + 48]",
            "movdqu xmm4, [{wanted} + 64]",
            "movdqu xmm5, [{wanted} + 80]",
            "movdqu xmm6, [{wanted} + 96]",
            "movdqu xmm7, [{wanted} + 112]",
            "movdqu xmm8, [{wanted} + 128]",
            "movdqu xmm9, [{wanted} + 144]",
            "movdqu xmm10, [{wanted} + 160]",
            "movdqu xmm11, [{wanted} + 176]",
            "movdqu xmm12, [{wanted} + 192]",
            "movdqu xmm13, [{wanted} + 208]",
            "movdqu xmm14, [{wanted} + 224]",
            "movdqu xmm15, [{wanted} + 240]",
            "2:",
            "pause",
            "cmp qword ptr [{over}], 0",
            "je 2b",
            "movdqu [{found}], xmm0",
            "movdqu [{found} + 16], xmm1",
            "movdqu [{found} + 32], xmm2",
            "movdqu [{found} + 48], xmm3",
            "movdqu [{found} + 64], xmm4",
            "movdqu [{found} + 80], xmm5",
            "movdqu [{found} + 96], xmm6",
            "movdqu [{found} + 112], xmm7",
            "movdqu [{found} + 128], xmm8",
            "movdqu [{found} + 144], xmm9",
            "movdqu [{found} + 160], xmm10",
            "movdqu [{found} + 176], xmm11",
            "movdqu [{found} + 192], xmm12",
            "movdqu [{found} + 208], xmm13",
            "movdqu [{found} + 224], xmm14",
            "movdqu [{found} + 240], xmm15",
            wanted = in(reg) wanted.as_ptr(),
            found = in(reg) found.as_mut_ptr(),
            over = in(reg) OVER.as_ptr(),
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack),
        );
    }
}

fn spin_avx(wanted: &[u64], found: &mut [u64]) {
    assert_eq!((wanted.len(), found.len()), (64, 64));
    // SAFETY: only called where the processor has AVX; reads 64 words of `wanted` and writes 64 of
    // `found` (asserted), reads OVER; all sixteen registers are declared.
    unsafe {
        asm!(
            "vmovdqu ymm0, [{wanted}]",
            "vmovdqu ymm1, [{wanted} + 32]",
            "vmovdqu ymm2, [{wanted} + 64]",
            "vmovdqu ymm3, [{wanted} + 96]",
            "vmovdqu ymm4, [{wanted} + 128]",
            "vmovdqu ymm5, [{wanted} + 160]",
            "vmovdqu ymm6, [{wanted} + 192]",
            "vmovdqu ymm7, [{wanted} + 224]",
            "vmovdqu ymm8, [{wanted} + 256]",
            "vmovdqu ymm9, [{wanted} + 288]",
            "vmovdqu ymm10, [{wanted} + 320]",
            "vmovdqu ymm11, [{wanted} + 352]",
            "vmovdqu ymm12, [{wanted} + 384]",
            "vmovdqu ymm13, [{wanted} + 416]",
            "vmovdqu ymm14, [{wanted} + 448]",
            "vmovdqu ymm15, [{wanted} + 480]",
            "2:",
            "pause",
            "cmp qword ptr [{over}], 0",
            "je 2b",
            "vmovdqu [{found}], ymm0",
            "vmovdqu [{found} + 32], ymm1",
            "vmovdqu [{found} + 64], ymm2",
            "vmovdqu [{found} + 96], ymm3",
            "vmovdqu [{found} + 128], ymm4",
            "vmovdqu [{found} + 160], ymm5",
            "vmovdqu [{found} + 192], ymm6",
            "vmovdqu [{found} + 224], ymm7",
            "vmovdqu [{found} + 256], ymm8",
            "vmovdqu [{found} + 288], ymm9",
            "vmovdqu [{found} + 320], ymm10",
            "vmovdqu [{found} + 352], ymm11",
            "vmovdqu [{found} + 384], ymm12",
            "vmovdqu [{found} + 416], ymm13",
            "vmovdqu [{found} + 448], ymm14",
            "vmovdqu [{found} + 480], ymm15",
            "vzeroupper",
            wanted = in(reg) wanted.as_ptr(),
            found = in(reg) found.as_mut_ptr(),
            over = in(reg) OVER.as_ptr(),
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack),
        );
    }
}

/// zmm0-zmm31, and k1-k7 as the last seven words.
fn spin_avx512(wanted: &[u64], found: &mut [u64]) {
    assert_eq!((wanted.len(), found.len()), (263, 263));
    // zmm16-31 and k1-7 cannot be declared without compiling for AVX-512; for the same reason the
    // compiler keeps nothing in them.
    // SAFETY: only called where the processor has AVX-512BW; reads 263 words of `wanted` and writes
    // 263 of `found` (asserted), reads OVER.
    unsafe {
        asm!(
            ".set at, 0",
            ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
            "vmovdqu64 zmm\\n, [{wanted} + at]",
            ".set at, at + 64",
            ".endr",
            ".irp n,1,2,3,4,5,6,7",
            "kmovq k\\n, [{wanted} + at]",
            ".set at, at + 8",
            ".endr",
            "2:",
            "pause",
            "cmp qword ptr [{over}], 0",
            "je 2b",
            ".set at, 0",
            ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
            "vmovdqu64 [{found} + at], zmm\\n",
            ".set at, at + 64",
            ".endr",
            ".irp n,1,2,3,4,5,6,7",
            "kmovq [{found} + at], k\\n",
            ".set at, at + 8",
            ".endr",
            "vzeroupper",
            wanted = in(reg) wanted.as_ptr(),
            found = in(reg) found.as_mut_ptr(),
            over = in(reg) OVER.as_ptr(),
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
            out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack),
        );
    }
}

/// Eight 80-bit numbers on the x87 stack.
fn hold_x87() -> Held {
    // Integers that need more than 53 bits, so that a detour through double would show.
    let wanted: Vec<u64> = (0..8).map(|i| pattern::word(87, i) >> 1).collect();
    let mut found = vec![0_u64; 8];
    SPINNING.fetch_add(1, Ordering::SeqCst);
    // SAFETY: reads 8 words of `wanted` and writes 8 of `found`, reads OVER; the x87 stack is
    // empty at the start (ABI) and again at the end.
    unsafe {
        asm!(
            "fild qword ptr [{wanted}]",
            "fild qword ptr [{wanted} + 8]",
            "fild qword ptr [{wanted} + 16]",
            "fild qword ptr [{wanted} + 24]",
            "fild qword ptr [{wanted} + 32]",
            "fild qword ptr [{wanted} + 40]",
            "fild qword ptr [{wanted} + 48]",
            "fild qword ptr [{wanted} + 56]",
            "2:",
            "pause",
            "cmp qword ptr [{over}], 0",
            "je 2b",
            "fistp qword ptr [{found} + 56]",
            "fistp qword ptr [{found} + 48]",
            "fistp qword ptr [{found} + 40]",
            "fistp qword ptr [{found} + 32]",
            "fistp qword ptr [{found} + 24]",
            "fistp qword ptr [{found} + 16]",
            "fistp qword ptr [{found} + 8]",
            "fistp qword ptr [{found}]",
            wanted = in(reg) wanted.as_ptr(),
            found = in(reg) found.as_mut_ptr(),
            over = in(reg) OVER.as_ptr(),
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            options(nostack),
        );
    }
    ("x87 registers", wanted, found)
}

/// Rounding modes and exception masks that are not the default ones.
fn hold_control_words() -> Held {
    // MXCSR: round towards zero, flush to zero, all exceptions masked; x87: 53 bits, round down.
    let wanted = [0xff80_u32, 0x067f];
    let mut old = [0_u32; 2];
    let mut found = [0_u32; 2];
    SPINNING.fetch_add(1, Ordering::SeqCst);
    // SAFETY: reads 2 words of `wanted`, writes 2 of `old` and `found`, reads OVER; both control
    // words are put back before Rust computes with them.
    unsafe {
        asm!(
            "stmxcsr [{old}]",
            "fnstcw [{old} + 4]",
            "ldmxcsr [{wanted}]",
            "fldcw [{wanted} + 4]",
            "2:",
            "pause",
            "cmp qword ptr [{over}], 0",
            "je 2b",
            "stmxcsr [{found}]",
            "fnstcw [{found} + 4]",
            "ldmxcsr [{old}]",
            "fldcw [{old} + 4]",
            wanted = in(reg) wanted.as_ptr(),
            old = in(reg) old.as_mut_ptr(),
            found = in(reg) found.as_mut_ptr(),
            over = in(reg) OVER.as_ptr(),
            options(nostack),
        );
    }
    let widen = |words: [u32; 2]| words.map(u64::from).to_vec();
    ("floating point control words", widen(wanted), widen(found))
}

/// Computes in floating point until the checkpoint is over; gives rounds and result.
fn compute() -> (u64, f64) {
    SPINNING.fetch_add(1, Ordering::SeqCst);
    let (mut value, mut rounds) = (1.0_f64, 0_u64);
    while OVER.load(Ordering::Relaxed) == 0 {
        value = step(value);
        rounds += 1;
        // Makes the replay much faster than the original, however long that took.
        (0..32).for_each(|_| std::hint::spin_loop());
    }
    (rounds, value)
}

/// The same computation without a checkpoint.
fn replay(rounds: u64) -> f64 {
    (0..black_box(rounds)).fold(1.0, |value, _| step(value))
}

fn step(value: f64) -> f64 {
    // The logistic map: one wrong bit is amplified until nothing is right any more.
    let x = value / 4.0;
    (3.999 * x * (1.0 - x)).mul_add(3.9, 0.05)
}

/// A gs base of the thread's own, which some runtimes use.
fn hold_gs() -> io::Result<(u64, u64)> {
    const BASE: u64 = 0x1234_5678_9000;
    sys::set_gs_base(BASE)?;
    SPINNING.fetch_add(1, Ordering::SeqCst);
    while OVER.load(Ordering::Relaxed) == 0 {
        std::hint::spin_loop();
    }
    Ok((BASE, sys::gs_base()?))
}
