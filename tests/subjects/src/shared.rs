//! Memory that several mappings, descriptors and processes share, and that no file system holds.

use crate::pattern;
use crate::stage::Stage;
use crate::sys::{self, Mapping, PAGE};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

const READ: i32 = libc::PROT_READ;
const WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const SHARED: i32 = libc::MAP_SHARED;

/// Pages of the object with several views, most of which are never touched.
const OBJECT_PAGES: usize = 1 << 14;

/// Every kind of shared memory, seen through all of its mappings and descriptors.
pub(crate) fn shared_memory(stage: &'static Stage) -> io::Result<()> {
    let mut views = Views::set_up()?;
    let mut orphan = Orphan::set_up()?;
    let sealed = sealed()?;
    let mut anonymous = Mapping::shared(4096)?;
    pattern::fill(anonymous.words_mut(7, 9), 84);
    // Pages without an entry in the page table: the memory has them, the process does not know.
    anonymous.advise(8, 4, libc::MADV_DONTNEED)?;
    let mut deleted = Deleted::set_up(stage)?;
    let mut log = shared_log(stage)?;

    stage.across()?;

    views.check(stage)?;
    orphan.check(stage)?;
    check_sealed(stage, &sealed)?;
    stage.same(
        "shared anonymous memory",
        &None,
        &pattern::first_difference(anonymous.words(7, 9), 84),
    );
    let zero = anonymous.words(16, 4080).iter().all(|word| *word == 0);
    stage.holds("the rest of shared anonymous memory is zero", zero);
    anonymous.advise(7, 1, libc::MADV_DONTNEED)?;
    let kept = anonymous.words(7, 1)[0];
    stage.same("discarded shared memory is still there", &pattern::word(84, 0), &kept);
    stage.holds("it is shared", rights(&anonymous)?.ends_with('s'));
    deleted.check(stage)?;
    log.check(stage)
}

/// One object under three addresses and two descriptors, as a garbage collector with coloured
/// pointers has its heap.
struct Views {
    fd: File,
    again: File,
    whole: Mapping,
    part: Mapping,
    read_only: Mapping,
    private: Mapping,
}

impl Views {
    fn set_up() -> io::Result<Self> {
        let fd = File::from(sys::memfd(c"java_heap", 0)?);
        fd.set_len((OBJECT_PAGES * PAGE) as u64 + 100)?;
        let mut whole = Mapping::file_at(&fd, 0, OBJECT_PAGES, WRITE, SHARED)?;
        let part = Mapping::file_at(&fd, 64, 128, WRITE, SHARED)?;
        let own = "/proc/self/fd/".to_owned() + &std::os::fd::AsRawFd::as_raw_fd(&fd).to_string();
        let again = File::open(own)?;
        let read_only = Mapping::file_at(&again, 100, 8, READ, SHARED)?;
        let mut private = Mapping::file_at(&fd, 100, 8, WRITE, libc::MAP_PRIVATE)?;
        pattern::fill(whole.words_mut(60, 100), 80);
        pattern::fill(whole.words_mut(OBJECT_PAGES - 2, 2), 81);
        pattern::fill(private.words_mut(3, 1), 82);
        private.words_mut(4, 1).fill(0);
        fd.write_all_at(b"the tail", (OBJECT_PAGES * PAGE) as u64 + 92)?;
        io::Seek::seek(&mut &fd, io::SeekFrom::Start(4321))?;
        Ok(Self { fd, again, whole, part, read_only, private })
    }

    fn check(&mut self, stage: &Stage) -> io::Result<()> {
        let difference = pattern::first_difference(self.whole.words(60, 100), 80);
        stage.same("memfd", &None, &difference);
        let difference = pattern::first_difference(self.whole.words(OBJECT_PAGES - 2, 2), 81);
        stage.same("end of the memfd", &None, &difference);
        let zero = self.whole.words(200, 1000).iter().all(|word| *word == 0);
        stage.holds("what was never written is zero", zero);
        stage.same(
            "size of the memfd",
            &((OBJECT_PAGES * PAGE) as u64 + 100),
            &self.fd.metadata()?.len(),
        );
        let mut tail = [0; 8];
        self.fd.read_exact_at(&mut tail, (OBJECT_PAGES * PAGE) as u64 + 92)?;
        stage.same("its last bytes", b"the tail", &tail);
        stage.same("position", &4321, &io::Seek::stream_position(&mut &self.fd)?);
        stage.same(
            "position of the other description",
            &0,
            &io::Seek::stream_position(&mut &self.again)?,
        );
        stage.holds("the other one cannot write", self.again.write_at(b"x", 0).is_err());
        // One object: what is written through one is seen through all.
        self.part.words_mut(36, 1)[0] = 0x1234;
        stage.same("seen through the whole", &0x1234, &self.whole.words(100, 1)[0]);
        stage.same("seen through the read-only view", &0x1234, &self.read_only.words(0, 1)[0]);
        stage.same("seen through the private view", &0x1234, &self.private.words(0, 1)[0]);
        let mut bytes = [0; 8];
        self.again.read_exact_at(&mut bytes, 100 * PAGE as u64)?;
        stage.same("seen through the descriptor", &0x1234, &u64::from_le_bytes(bytes));
        stage.same(
            "own page of the private view",
            &None,
            &pattern::first_difference(self.private.words(3, 1), 82),
        );
        let zero = self.private.words(4, 1).iter().all(|word| *word == 0);
        stage.holds("zeroed page of the private view", zero);
        stage.holds("the read-only view stays so", self.read_only.protect(0, 1, WRITE).is_err());
        Ok(())
    }
}

/// A memfd whose descriptors are closed.
struct Orphan {
    one: Mapping,
    other: Mapping,
}

impl Orphan {
    fn set_up() -> io::Result<Self> {
        let fd = File::from(sys::memfd(c"orphan (deleted)", libc::MFD_CLOEXEC)?);
        fd.set_len(64 * PAGE as u64)?;
        let mut one = Mapping::file_at(&fd, 0, 32, WRITE, SHARED)?;
        let other = Mapping::file_at(&fd, 16, 40, WRITE, SHARED)?;
        pattern::fill(one.words_mut(10, 20), 83);
        Ok(Self { one, other })
    }

    fn check(&mut self, stage: &Stage) -> io::Result<()> {
        stage.same(
            "memory file without descriptor",
            &None,
            &pattern::first_difference(self.one.words(10, 20), 83),
        );
        self.other.words_mut(0, 1)[0] = 0x77;
        stage.same("seen through the other mapping", &0x77, &self.one.words(16, 1)[0]);
        self.other.words_mut(39, 1)[0] = 0x78;
        Ok(())
    }
}

/// A memfd that nobody may change any more.
fn sealed() -> io::Result<(OwnedFd, Mapping)> {
    let fd = sys::memfd(c"sealed", libc::MFD_ALLOW_SEALING)?;
    let file = File::from(fd.try_clone()?);
    file.write_all_at(&pattern::bytes(3 * PAGE, 85), 0)?;
    file.set_permissions(fs::Permissions::from_mode(0o440))?;
    drop(file);
    sys::fcntl(&fd, libc::F_ADD_SEALS, SEALS)?;
    let mapping = Mapping::file_at(&fd, 0, 3, READ, SHARED)?;
    Ok((fd, mapping))
}

const SEALS: i32 = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;

fn check_sealed(stage: &Stage, (fd, mapping): &(OwnedFd, Mapping)) -> io::Result<()> {
    stage.same("seals", &SEALS, &sys::fcntl(fd, libc::F_GET_SEALS, 0)?);
    stage.same("sealed memory", &None, &pattern::first_difference(mapping.words(0, 3), 85));
    let file = File::from(fd.try_clone()?);
    stage.same("mode of the sealed file", &0o440, &(file.metadata()?.mode() & 0o7777));
    stage.holds("sealed memory cannot be written to", file.write_at(b"x", 0).is_err());
    stage.holds("nor cut off", file.set_len(1).is_err());
    Ok(())
}

/// A file that was deleted while it was mapped, as a shared and as a private mapping.
struct Deleted {
    shared: Mapping,
    fd: File,
    private: Mapping,
}

impl Deleted {
    fn set_up(stage: &Stage) -> io::Result<Self> {
        let path = stage.path("gone");
        fs::write(&path, pattern::bytes(6 * PAGE, 86))?;
        let fd = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut shared = Mapping::file_at(&fd, 0, 6, WRITE, SHARED)?;
        shared.words_mut(5, 1)[0] = 5;
        fs::remove_file(&path)?;
        let path = stage.path("gone too");
        fs::write(&path, pattern::bytes(5 * PAGE + 9, 87))?;
        // Two pages more than there are in the file.
        let mut private = Mapping::file_at(File::open(&path)?, 0, 8, WRITE, libc::MAP_PRIVATE)?;
        private.words_mut(2, 1)[0] = 2;
        fs::remove_file(&path)?;
        Ok(Self { shared, fd, private })
    }

    fn check(&mut self, stage: &Stage) -> io::Result<()> {
        stage.same("deleted file", &None, &pattern::first_difference(self.shared.words(0, 5), 86));
        stage.same("page written to", &5, &self.shared.words(5, 1)[0]);
        self.shared.words_mut(1, 1)[0] = 0x99;
        let mut bytes = [0; 8];
        self.fd.read_exact_at(&mut bytes, PAGE as u64)?;
        stage.same("seen through the descriptor", &0x99, &u64::from_le_bytes(bytes));
        stage.same("no name", &0, &self.fd.metadata()?.nlink());
        stage.same(
            "private mapping of a deleted file",
            &None,
            &pattern::first_difference(self.private.words(0, 2), 87),
        );
        stage.same("its own page", &2, &self.private.words(2, 1)[0]);
        let word = self.private.words(4, 1)[7];
        stage.same("and the pages after it", &pattern::word(87, 4 * 512 + 7), &word);
        Ok(())
    }
}

/// A file that this process writes to through memory, and others as well.
struct Log {
    path: std::path::PathBuf,
    mapping: Mapping,
}

fn shared_log(stage: &Stage) -> io::Result<Log> {
    let path = stage.path("log");
    fs::write(&path, pattern::bytes(3 * PAGE, 88))?;
    let fd = OpenOptions::new().read(true).write(true).open(&path)?;
    let mut mapping = Mapping::file_at(&fd, 0, 3, WRITE, SHARED)?;
    mapping.words_mut(2, 1)[0] = 1;
    Ok(Log { path, mapping })
}

impl Log {
    fn check(&mut self, stage: &Stage) -> io::Result<()> {
        stage.same("shared file", &None, &pattern::first_difference(self.mapping.words(0, 2), 88));
        self.mapping.words_mut(2, 1)[1] = 0x4242;
        let bytes = fs::read(&self.path)?;
        let word = &bytes[2 * PAGE + 8..2 * PAGE + 16];
        stage.same("what is written is in the file", &0x4242_u64.to_le_bytes()[..], word);
        Ok(())
    }
}

/// The `rwxp` column of the line that starts where the mapping does.
fn rights(mapping: &Mapping) -> io::Result<String> {
    let start = format!("{:x}-", mapping.address());
    let maps = fs::read_to_string("/proc/self/maps")?;
    let line = maps.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
    Ok(line.split(' ').nth(1).unwrap_or_default().to_owned())
}
