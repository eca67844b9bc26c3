//! Memory that parent and child have in common and that no file system holds.
//!
//! ```text
//!   anonymous     mapped before the fork: both write to it, and wait for each other through it
//!   sealed        a memfd with seals: the parent has the descriptor, the child only a mapping
//!   child's       a memfd that the child has made: its parent knows nothing of it
//! ```

use crate::pattern;
use crate::stage::Stage;
use crate::sys::{self, Mapping, PAGE};
use crate::thread;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

const WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const SEALS: i32 =
    libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

/// Pages of the anonymous memory; the first is for the conversation.
const PAGES: usize = 64;

/// Words of the first page: what has been said by whom.
const PARENT: usize = 0;
const CHILD: usize = 1;

/// Looks at a word of the other's before it is given up: about 20 seconds.
const LOOKS: u32 = 4000;

pub(crate) fn commons(stage: &'static Stage) -> io::Result<()> {
    let mut anonymous = Mapping::shared(PAGES)?;
    pattern::fill(anonymous.words_mut(1, 8), 90);
    let fd = sys::memfd(c"sealed", libc::MFD_ALLOW_SEALING)?;
    File::from(fd.try_clone()?).write_all_at(&pattern::bytes(3 * PAGE, 91), 0)?;
    let mut sealed = Mapping::file_at(&fd, 0, 3, WRITE, libc::MAP_SHARED)?;
    // What is mapped already stays writable; nobody else can write any more.
    sys::fcntl(&fd, libc::F_ADD_SEALS, SEALS)?;
    let (mut said, line) = sys::pipe(0)?;
    let Some(_) = sys::fork()? else {
        drop((said, fd));
        let mut line = line;
        if let Err(error) = self::child(stage, &mut anonymous, &mut sealed) {
            stage.differs(format!("could not go on: {error}"));
        }
        for difference in stage.differences() {
            let _ = writeln!(line, "child: {difference}");
        }
        sys::exit(0)
    };
    drop(line);
    wait_for(&anonymous, CHILD, 1)?;
    sealed.words_mut(0, 1)[0] = 910;

    stage.across()?;

    check_seals(stage, &fd)?;
    stage.same("sealed memory", &910, &sealed.words(0, 1)[0]);
    stage.same("the rest of it", &pattern::word(91, 1), &sealed.words(0, 1)[1]);
    let kept = pattern::first_difference(anonymous.words(1, 8), 90);
    stage.same("shared anonymous memory", &None, &kept);
    stage.same("what the child wrote before", &pattern::word(92, 0), &anonymous.words(40, 1)[0]);
    anonymous.words_mut(50, 1)[0] = 50;
    sealed.words_mut(2, 1)[0] = 912;
    say(&mut anonymous, PARENT, 2);
    wait_for(&anonymous, CHILD, 3)?;
    stage.same("answer in anonymous memory", &51, &anonymous.words(50, 1)[1]);
    stage.same("answer in sealed memory", &913, &sealed.words(2, 1)[1]);
    let mut text = String::new();
    said.read_to_string(&mut text)?;
    text.lines().for_each(|line| stage.differs(line.to_owned()));
    // Whatever its id is now.
    let ended = sys::wait(-1, 0)?;
    stage.holds("the child has ended", ended.is_some());
    Ok(())
}

fn child(stage: &Stage, anonymous: &mut Mapping, sealed: &mut Mapping) -> io::Result<()> {
    let own = sys::memfd(c"own", libc::MFD_ALLOW_SEALING)?;
    File::from(own.try_clone()?).write_all_at(&pattern::bytes(2 * PAGE, 93), 0)?;
    sys::fcntl(&own, libc::F_ADD_SEALS, libc::F_SEAL_WRITE)?;
    pattern::fill(anonymous.words_mut(40, 1), 92);
    say(anonymous, CHILD, 1);

    stage.wait_for_go()?;
    wait_for(anonymous, PARENT, 2)?;

    stage.same("seals of our own", &libc::F_SEAL_WRITE, &sys::fcntl(&own, libc::F_GET_SEALS, 0)?);
    let mut bytes = vec![0; 2 * PAGE];
    File::from(own.try_clone()?).read_exact_at(&mut bytes, 0)?;
    stage.holds("memory of our own", bytes == pattern::bytes(2 * PAGE, 93));
    stage.same("word of the parent", &50, &anonymous.words(50, 1)[0]);
    stage.same("sealed word from before", &910, &sealed.words(0, 1)[0]);
    stage.same("sealed word of the parent", &912, &sealed.words(2, 1)[0]);
    anonymous.words_mut(50, 1)[1] = 51;
    sealed.words_mut(2, 1)[1] = 913;
    say(anonymous, CHILD, 3);
    Ok(())
}

fn check_seals(stage: &Stage, fd: &OwnedFd) -> io::Result<()> {
    stage.same("seals", &SEALS, &sys::fcntl(fd, libc::F_GET_SEALS, 0)?);
    let file = File::from(fd.try_clone()?);
    stage.holds("sealed memory cannot be written to", file.write_at(b"x", 0).is_err());
    stage.holds("nor cut off", file.set_len(1).is_err());
    let anew = Mapping::file_at(fd, 0, 3, WRITE, libc::MAP_SHARED);
    stage.holds("nor mapped for writing", anew.is_err());
    Ok(())
}

fn say(memory: &mut Mapping, who: usize, what: u64) {
    memory.words_mut(0, 1)[who] = what;
}

/// Looks often enough for the other's word; each look is a call that the compiler cannot skip.
fn wait_for(memory: &Mapping, who: usize, what: u64) -> io::Result<()> {
    for _ in 0..LOOKS {
        if std::hint::black_box(memory.words(0, 1))[who] >= what {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Err(io::Error::other(format!("the other has not come to {what}")))
}
