//! Tiles of AMX: registers that a process must ask for, and that the kernel makes room for at their
//! first use.
//!
//! In: the option `released`, where they are given back before the checkpoint. Out: differences.
//! Invariant: as in `registers`, there is no call between loading and storing.

use crate::pattern;
use crate::stage::{Stage, say};
use crate::sys;
use crate::thread;
use std::arch::asm;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Set once the checkpoint is over; the threads spin on it.
static OVER: AtomicU64 = AtomicU64::new(0);

/// Threads that have loaded their registers, or are about to.
static SPINNING: AtomicU32 = AtomicU32::new(0);

/// Rows of a tile, and bytes of each: the largest that there are (palette 1).
const ROWS: usize = 16;
const ROW_BYTES: usize = 64;
/// Words of a tile, and how many tiles there are.
const TILE_WORDS: usize = ROWS * ROW_BYTES / 8;
const TILES: usize = 8;

/// Intel SDM, LDTILECFG: palette, row at which to start, bytes of a row of each tile, its rows.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: Configuration = {
    let mut all = Configuration {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    let mut tile = 0;
    while tile < TILES {
        all.row_bytes[tile] = 64;
        all.rows[tile] = 16;
        tile += 1;
    }
    all
};

/// `tiles [released]`: two threads that have tiles in use while they wait, or had; and that may use
/// them afterwards. The file `lacking` says why there are none.
pub(crate) fn tiles(stage: &'static Stage) -> io::Result<()> {
    if let Err(error) = sys::ask_for_tiles() {
        let lacking = format!("no AMX here: {error}");
        say(&format!("skipped: {lacking}"));
        fs::write(stage.path("lacking"), lacking)?;
        return stage.across();
    }
    let spin = if stage.option(0) == Some("released") { spin_released } else { spin_in_use };
    let holders = [1_u64, 2].map(|seed| thread::spawn(move || hold(seed, spin)));
    while SPINNING.load(Ordering::SeqCst) < 2 {
        thread::yield_now();
    }

    stage.across()?;
    OVER.store(1, Ordering::SeqCst);

    for holder in holders {
        let (wanted, found) = holder.join().expect("holders do not panic");
        stage.same("registers of a thread with tiles", &wanted, &found);
    }
    // A copy has been given leave as the original had it. Each thread has room for tiles of its own, so another one begins anew.
    let (wanted, found) = thread::spawn(|| hold(3, spin_in_use)).join().expect("it does not panic");
    stage.same("tiles of a thread that starts later", &wanted, &found);
    Ok(())
}

/// What was to be held, and what was found in the end.
fn hold(seed: u64, spin: fn(&[u64], &mut [u64])) -> (Vec<u64>, Vec<u64>) {
    // In front of the tiles what AVX-512 has, or zeros.
    let mut wanted = vec![0; VECTOR_WORDS + TILES * TILE_WORDS];
    pattern::fill(&mut wanted, 1000 + seed);
    let mut found = vec![0; wanted.len()];
    spin(&wanted, &mut found);
    (wanted, found)
}

/// zmm0-15: whoever has AMX has AVX-512.
const VECTOR_WORDS: usize = 16 * 8;

/// Tiles loaded, and stored when the checkpoint is over.
fn spin_in_use(wanted: &[u64], found: &mut [u64]) {
    spin(wanted, found, false);
}

/// Tiles loaded, stored and released; what they held is in memory while the thread waits. Then they
/// are used once more, without asking again.
fn spin_released(wanted: &[u64], found: &mut [u64]) {
    spin(wanted, found, true);
    let mut again = vec![0; found.len()];
    // OVER by now: it does not wait.
    spin(wanted, &mut again, false);
    if again != *found {
        found.fill(0);
    }
}

fn spin(wanted: &[u64], found: &mut [u64], release: bool) {
    assert_eq!((wanted.len(), found.len()), (VECTOR_WORDS + TILES * TILE_WORDS, wanted.len()));
    let (tiles, tiles_found) = (&wanted[VECTOR_WORDS..], found[VECTOR_WORDS..].as_mut_ptr());
    load_tiles(tiles);
    if release {
        // SAFETY: as below.
        unsafe { store_tiles(tiles_found) };
        // SAFETY: tiles have nothing to do with what the compiler keeps anywhere.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
    spin_avx512(&wanted[..VECTOR_WORDS], &mut found[..VECTOR_WORDS]);
    if !release {
        // SAFETY: `found` has room for all tiles behind the vectors (asserted).
        unsafe { store_tiles(tiles_found) };
        // SAFETY: as above.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
}

fn load_tiles(from: &[u64]) {
    assert_eq!(from.len(), TILES * TILE_WORDS);
    // SAFETY: only called where the kernel has let us use tiles; reads the configuration and all
    // words of `from` (asserted). The compiler knows nothing of tiles, and keeps nothing in them.
    unsafe {
        asm!(
            "ldtilecfg [{configuration}]",
            "tileloadd tmm0, [{from} + {row}]",
            "tileloadd tmm1, [{from} + {row} + 1024]",
            "tileloadd tmm2, [{from} + {row} + 2048]",
            "tileloadd tmm3, [{from} + {row} + 3072]",
            "tileloadd tmm4, [{from} + {row} + 4096]",
            "tileloadd tmm5, [{from} + {row} + 5120]",
            "tileloadd tmm6, [{from} + {row} + 6144]",
            "tileloadd tmm7, [{from} + {row} + 7168]",
            configuration = in(reg) &raw const CONFIGURATION,
            from = in(reg) from.as_ptr(),
            row = in(reg) ROW_BYTES,
            options(nostack, readonly),
        );
    }
}

/// # Safety
///
/// `to` has room for all tiles, which are loaded.
unsafe fn store_tiles(to: *mut u64) {
    // SAFETY: writes what the caller has room for.
    unsafe {
        asm!(
            "tilestored [{to} + {row}], tmm0",
            "tilestored [{to} + {row} + 1024], tmm1",
            "tilestored [{to} + {row} + 2048], tmm2",
            "tilestored [{to} + {row} + 3072], tmm3",
            "tilestored [{to} + {row} + 4096], tmm4",
            "tilestored [{to} + {row} + 5120], tmm5",
            "tilestored [{to} + {row} + 6144], tmm6",
            "tilestored [{to} + {row} + 7168], tmm7",
            to = in(reg) to,
            row = in(reg) ROW_BYTES,
            options(nostack),
        );
    }
}

/// Holds zmm0-15 until the checkpoint is over.
fn spin_avx512(wanted: &[u64], found: &mut [u64]) {
    assert_eq!((wanted.len(), found.len()), (VECTOR_WORDS, VECTOR_WORDS));
    SPINNING.fetch_add(1, Ordering::SeqCst);
    // SAFETY: whoever has AMX has AVX-512; reads the words of `wanted` and writes those of `found`
    // (asserted), reads OVER; all sixteen registers are declared.
    unsafe {
        asm!(
            ".set at, 0",
            ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "vmovdqu64 zmm\\n, [{wanted} + at]",
            ".set at, at + 64",
            ".endr",
            "2:",
            "pause",
            "cmp qword ptr [{over}], 0",
            "je 2b",
            ".set at, 0",
            ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "vmovdqu64 [{found} + at], zmm\\n",
            ".set at, at + 64",
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
