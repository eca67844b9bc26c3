//! The functions of the vdso, by way of the C library, against the system calls that they stand for.

use crate::stage::Stage;
use crate::sys;
use std::io;

const CLOCKS: [libc::clockid_t; 4] = [
    libc::CLOCK_MONOTONIC,
    libc::CLOCK_REALTIME,
    libc::CLOCK_BOOTTIME,
    libc::CLOCK_MONOTONIC_COARSE,
];

/// Clocks, the resolution of clocks and the number of the processor are those of the kernel.
pub(crate) fn vdso(stage: &'static Stage) -> io::Result<()> {
    // The C library looks its functions up at its start; ask for each once all the same.
    ask(stage);
    let start = sys::vdso_start();

    stage.across()?;

    for _ in 0..200 {
        ask(stage);
    }
    // Whoever looks for functions now finds the table of before (getauxval(3)).
    stage.same("place of the vdso", &start, &sys::vdso_start());
    if let Some(start) = start {
        // SAFETY: the kernel, or an engine in its place, keeps a vdso mapped at that address.
        let magic = unsafe { sys::words_at(start, 1) }[0];
        stage.same("head of the vdso", &0x7f_u64, &(magic & 0xff));
    }
    Ok(())
}

fn ask(stage: &Stage) {
    for id in CLOCKS {
        let (before, found, after) =
            (sys::clock_by_call(id), sys::clock(id), sys::clock_by_call(id));
        stage.holds(
            &format!("clock {id} goes on between two calls"),
            before <= found && found <= after,
        );
        let (expected, found) = (sys::resolution_by_call(id), sys::resolution(id));
        stage.same(&format!("resolution of clock {id}"), &expected, &found);
    }
    let seconds = sys::clock_by_call(libc::CLOCK_REALTIME).as_secs();
    stage.within("seconds", &sys::seconds(), seconds - 1..=seconds + 5);
    let processors = std::thread::available_parallelism().map_or(1024, usize::from);
    stage.holds("processor is one of those there are", sys::processor() < processors.max(1024));
}
