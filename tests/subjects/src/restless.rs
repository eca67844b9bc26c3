//! A program that never leaves its mappings alone: what reads them piece by piece, as the kernel
//! gives them, meets pieces that do not fit together.

use crate::counter::heartbeat;
use crate::stage::Stage;
use crate::sys::Mapping;
use crate::thread;
use std::io;

/// Pages of each of the mappings.
const PAGES: usize = 64;
/// How many there are: `smaps` of all of them comes in dozens of pieces.
const MAPPINGS: usize = 40;

/// Two threads move the border between what may be written and what may not, up and down.
pub(crate) fn restless(stage: &'static Stage) -> io::Result<()> {
    let heart = heartbeat(stage);
    let movers: [_; 2] = std::array::from_fn(|_| {
        thread::spawn(move || -> io::Result<()> {
            let mut mappings = Vec::new();
            for _ in 0..MAPPINGS {
                let mut mapping = Mapping::anonymous(PAGES, libc::PROT_NONE, 0)?;
                mapping.protect(0, 1, libc::PROT_READ | libc::PROT_WRITE)?;
                mappings.push(mapping);
            }
            let mut border = 1;
            while !stage.is_over() {
                border = border % (PAGES - 2) + 1;
                for mapping in &mut mappings {
                    mapping.protect(0, border, libc::PROT_READ | libc::PROT_WRITE)?;
                    mapping.protect(border, PAGES - border, libc::PROT_NONE)?;
                }
            }
            for mapping in &mut mappings {
                mapping.protect(0, PAGES, libc::PROT_READ)?;
                stage.holds(
                    "untouched pages are zeros",
                    mapping.words(0, PAGES).iter().all(|&w| w == 0),
                );
            }
            Ok(())
        })
    });
    stage.across()?;
    for mover in movers {
        let moved = mover.join().map_err(|_| io::Error::other("a mover panicked"))?;
        stage.works("moving the borders", moved);
    }
    stage.holds("heartbeat could be joined", heart.join().is_ok());
    Ok(())
}
