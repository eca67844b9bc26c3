//! Mappings with something special about them: guards, locks, seals, advice, stacks that grow.

use crate::memory::has_flag;
use crate::pattern;
use crate::stage::{Promise, Stage, say};
use crate::sys::{self, Mapping, PAGE};
use std::fs::{self, File};
use std::io;

const READ: i32 = libc::PROT_READ;
const WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// linux/mman.h, since 6.13.
const GUARD_INSTALL: i32 = 102;
const GUARD_REMOVE: i32 = 103;

/// Advice, and what smaps calls it.
const ADVICE: [(i32, &str); 8] = [
    (libc::MADV_SEQUENTIAL, "sr"),
    (libc::MADV_RANDOM, "rr"),
    (libc::MADV_DONTFORK, "dc"),
    (libc::MADV_DONTDUMP, "dd"),
    (libc::MADV_HUGEPAGE, "hg"),
    (libc::MADV_NOHUGEPAGE, "nh"),
    (libc::MADV_MERGEABLE, "mg"),
    (libc::MADV_WIPEONFORK, "wf"),
];

/// Everything about a mapping that is neither its rights nor its bytes.
pub(crate) fn odd_memory(stage: &'static Stage) -> io::Result<()> {
    let mut guarded = Guarded::set_up(stage)?;
    let advised = advised()?;
    let mut droppable = optional("MAP_DROPPABLE", Mapping::droppable(4))?;
    if let Some(mapping) = &mut droppable {
        pattern::fill(mapping.words_mut(0, 4), 60);
    }
    let sealed = sealed()?;
    let mut stack = GrowingStack::set_up()?;
    let beyond = beyond_end(stage)?;
    let reserved = Mapping::anonymous(1 << 20, WRITE, libc::MAP_NORESERVE)?;
    let unreserved = Mapping::anonymous(64, WRITE, 0)?;
    let [mut zeros, mut shared_zeros] = zeros()?;

    stage.across()?;

    guarded.check(stage)?;
    for (mapping, flag) in &advised {
        stage.holds(&format!("advice {flag} is in force"), has_flag(mapping, flag)?);
        // Memory that is wiped in a fork is not stored either; `wipe-on-fork` looks at that.
        if *flag != "wf" {
            let difference = pattern::first_difference(mapping.words(0, 8), 50);
            stage.same(&format!("memory with advice {flag}"), &None, &difference);
        }
    }
    if let Some(mapping) = &droppable {
        stage.holds("droppable memory is still droppable", has_flag(mapping, "dp")?);
        if stage.promised(Promise::Restored) {
            let zero = mapping.words(0, 4).iter().all(|word| *word == 0);
            stage.holds("droppable memory is zero in a copy", zero);
        }
    }
    if let Some(mut mapping) = sealed {
        stage.same("sealed memory", &None, &pattern::first_difference(mapping.words(0, 8), 61));
        let refused = mapping.protect(0, 1, READ).is_err();
        stage.holds("sealed memory cannot be changed", refused);
    }
    stack.check(stage)?;
    let word = beyond.words(0, 1)[0];
    stage.same("file mapping up to the end of the file", &pattern::word(63, 0), &word);
    stage.holds("the last page of the file is there", beyond.is_readable(1)?);
    stage.holds("there is nothing beyond the end of the file", !beyond.is_readable(2)?);
    for (name, mapping) in [("private", &mut zeros), ("shared", &mut shared_zeros)] {
        let zero = |page| mapping.words(page, 1).iter().all(|word| *word == 0);
        stage.holds(&format!("{name} zeros of /dev/zero"), zero(0) && zero(2));
        let difference = pattern::first_difference(mapping.words(1, 1), 64);
        stage.same(&format!("what was written over {name} zeros"), &None, &difference);
        pattern::fill(mapping.words_mut(2, 1), 65);
    }
    stage.holds("a reservation counts as NORESERVE", has_flag(&reserved, "nr")?);
    stage.holds("other memory does not", !has_flag(&unreserved, "nr")?);
    Ok(())
}

/// `/dev/zero`, mapped private and shared, the second page of three written to.
fn zeros() -> io::Result<[Mapping; 2]> {
    let device = File::options().read(true).write(true).open("/dev/zero")?;
    let mut both = [
        Mapping::file(&device, 3, WRITE, libc::MAP_PRIVATE)?,
        Mapping::file(&device, 3, WRITE, libc::MAP_SHARED)?,
    ];
    for mapping in &mut both {
        pattern::fill(mapping.words_mut(1, 1), 64);
    }
    Ok(both)
}

/// Guards in anonymous memory and, where the kernel takes them there, in a file mapping.
struct Guarded {
    memory: Option<Mapping>,
    file: Option<Mapping>,
}

impl Guarded {
    const PAGES: usize = 64;
    const GUARDS: [(usize, usize); 3] = [(0, 1), (30, 2), (63, 1)];

    fn set_up(stage: &Stage) -> io::Result<Self> {
        let mut memory = Mapping::anonymous(Self::PAGES, WRITE, 0)?;
        pattern::fill(memory.words_mut(0, Self::PAGES), 45);
        let memory = optional("MADV_GUARD_INSTALL", Self::guard(memory))?;
        let path = stage.path("guarded");
        fs::write(&path, pattern::bytes(Self::PAGES * PAGE, 46))?;
        let file = Mapping::file(&File::open(&path)?, Self::PAGES, WRITE, libc::MAP_PRIVATE)?;
        let file = optional("MADV_GUARD_INSTALL in files", Self::guard(file))?;
        Ok(Self { memory, file })
    }

    fn guard(mut mapping: Mapping) -> io::Result<Mapping> {
        for (first, pages) in Self::GUARDS {
            mapping.advise(first, pages, GUARD_INSTALL)?;
        }
        Ok(mapping)
    }

    fn check(&mut self, stage: &Stage) -> io::Result<()> {
        for (mapping, seed) in [(&mut self.memory, 45), (&mut self.file, 46)] {
            let Some(mapping) = mapping else { continue };
            for page in 0..Self::PAGES {
                let guard = Self::GUARDS
                    .iter()
                    .any(|(first, pages)| (*first..first + pages).contains(&page));
                let readable = mapping.is_readable(page)?;
                stage.same(&format!("page {page} of {seed} is a guard"), &guard, &!readable);
                if !guard && readable {
                    let base = page as u64 * 512;
                    let words = mapping.words(page, 1);
                    let same = (base..).zip(words).all(|(at, w)| *w == pattern::word(seed, at));
                    stage.holds(&format!("page {page} of {seed} beside a guard"), same);
                }
            }
            mapping.advise(30, 2, GUARD_REMOVE)?;
            stage.holds("a guard can be removed", mapping.is_readable(31)?);
        }
        Ok(())
    }
}

fn advised() -> io::Result<Vec<(Mapping, &'static str)>> {
    let mut all = Vec::new();
    for (advice, flag) in ADVICE {
        // A page of no rights on both sides, so that nothing is joined.
        let _before = Mapping::anonymous(1, libc::PROT_NONE, 0)?;
        let mut mapping = Mapping::anonymous(8, WRITE, 0)?;
        let taken = mapping.advise(0, 8, advice);
        if optional(&format!("madvise({advice})"), taken)?.is_some() {
            pattern::fill(mapping.words_mut(0, 8), 50);
            all.push((mapping, flag));
        }
    }
    Ok(all)
}

fn sealed() -> io::Result<Option<Mapping>> {
    let mut mapping = Mapping::anonymous(8, WRITE, 0)?;
    pattern::fill(mapping.words_mut(0, 8), 61);
    Ok(optional("mseal", mapping.seal())?.map(|()| mapping))
}

/// A stack as the kernel grows it, with room below it.
struct GrowingStack {
    stack: Mapping,
}

impl GrowingStack {
    /// Below it pages without rights stay mapped, so that nothing else is put there: KERNEL(since
    /// 4.12): but for such, a stack does not come closer than 256 pages to the mapping below it
    /// (stack_guard_gap), and no mapping is put closer below a stack either.
    const ROOM: usize = 128;

    fn set_up() -> io::Result<Self> {
        let place = Mapping::anonymous(512, libc::PROT_NONE, libc::MAP_NORESERVE)?;
        let mut stack = place.stack_at_the_end(4, Self::ROOM)?;
        pattern::fill(stack.words_mut(0, 4), 62);
        let grown = stack.push_below(3 * PAGE, 7);
        assert_eq!(grown, 7, "the stack grows before the checkpoint");
        Ok(Self { stack })
    }

    fn check(&mut self, stage: &Stage) -> io::Result<()> {
        let difference = pattern::first_difference(self.stack.words(0, 4), 62);
        stage.same("stack", &None, &difference);
        stage.same("stack grown after the checkpoint", &8, &self.stack.push_below(100 * PAGE, 8));
        Ok(())
    }
}

/// Four pages of a file of one and a half.
fn beyond_end(stage: &Stage) -> io::Result<Mapping> {
    let path = stage.path("short");
    fs::write(&path, pattern::bytes(PAGE + PAGE / 2, 63))?;
    let mut mapping = Mapping::file(&File::open(&path)?, 4, WRITE, libc::MAP_PRIVATE)?;
    // The second page becomes our own; the first stays the file's.
    mapping.words_mut(1, 1)[0] = 1;
    Ok(mapping)
}

/// `locked [future]`: memory locked in each way stays so, and with `future` all that comes.
pub(crate) fn locked(stage: &'static Stage) -> io::Result<()> {
    let future = stage.option(0) == Some("future");
    let mut resident = Mapping::anonymous(32, WRITE, 0)?;
    pattern::fill(resident.words_mut(0, 32), 70);
    resident.lock(0, 32, 0)?;
    let _between = Mapping::anonymous(1, libc::PROT_NONE, 0)?;
    let mut on_fault = Mapping::anonymous(32, WRITE, 0)?;
    pattern::fill(on_fault.words_mut(8, 8), 71);
    on_fault.lock(0, 32, libc::MLOCK_ONFAULT)?;
    if future {
        sys::lock_all(libc::MCL_FUTURE)?;
    }

    stage.across()?;

    stage.same("locked memory", &None, &pattern::first_difference(resident.words(0, 32), 70));
    stage.same(
        "memory locked on fault",
        &None,
        &pattern::first_difference(on_fault.words(8, 8), 71),
    );
    // The harness says so where it restores with a limit that is too small.
    let unlocked = fs::exists(stage.path("unlocked"))?;
    stage.same("locked memory is locked", &!unlocked, &has_flag(&resident, "lo")?);
    stage.same("and so it is on fault", &!unlocked, &has_flag(&on_fault, "lf")?);
    stage.holds("but only there", !has_flag(&resident, "lf")?);
    let fresh = Mapping::anonymous(3, WRITE, 0)?;
    stage.same("new memory is locked", &(future && !unlocked), &has_flag(&fresh, "lo")?);
    Ok(())
}

/// What a kernel may not have; then the harness is told.
fn optional<T>(what: &str, result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            say(&format!("skipped: {what}: {error}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
