//! Open files: positions, flags, sharing, numbers, and the everyday devices.

use crate::pattern;
use crate::stage::Stage;
use crate::sys;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

/// A descriptor number far from what open(2) hands out.
const FAR: i32 = 217;

/// Regular files, directories, devices.
pub(crate) fn files(stage: &'static Stage) -> io::Result<()> {
    let path = stage.path("data");
    fs::write(&path, pattern::bytes(10_000, 80))?;
    let mut reading = File::open(&path)?;
    reading.seek(SeekFrom::Start(1234))?;
    let second = reading.try_clone()?;
    let far = File::from(sys::dup_to(&reading, FAR, 0)?);
    let mut apart = File::open(&path)?;
    apart.seek(SeekFrom::Start(77))?;

    let log_path = stage.path("log");
    fs::write(&log_path, "before\n")?;
    let mut log = OpenOptions::new().append(true).open(&log_path)?;
    let mut both =
        OpenOptions::new().read(true).write(true).create_new(true).open(stage.path("both"))?;
    both.write_all(b"0123456789")?;
    both.seek(SeekFrom::Start(4))?;

    let listed = stage.path("listed");
    fs::create_dir(&listed)?;
    for number in 0..40 {
        fs::write(listed.join(format!("entry-{number:02}")), "")?;
    }
    let directory = File::open(&listed)?;
    let mut names = sys::next_entries(&directory, 400)?;

    let mut null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let mut zero = File::open("/dev/zero")?;
    let mut random = File::open("/dev/urandom")?;

    let flags = |file: &File| sys::fcntl(file, libc::F_GETFL, 0).map_err(|e| e.raw_os_error());
    let cloexec = |file: &File| sys::fcntl(file, libc::F_GETFD, 0).map_err(|e| e.raw_os_error());
    let shape = |file: &File| (flags(file), cloexec(file));
    let all = [&reading, &second, &far, &apart, &log, &both, &directory, &null, &zero, &random];
    let shapes_before: Vec<_> = all.iter().map(|file| shape(file)).collect();
    let next_before = next_number()?;

    stage.across()?;

    let all = [&reading, &second, &far, &apart, &log, &both, &directory, &null, &zero, &random];
    let shapes: Vec<_> = all.iter().map(|file| shape(file)).collect();
    stage.same("flags and FD_CLOEXEC of ten descriptors", &shapes_before, &shapes);

    stage.same("position", &1234, &reading.stream_position()?);
    stage.same("content", &pattern::bytes(10_000, 80)[1234..1300], &take(&mut reading, 66)?[..]);
    stage.same("position of a duplicate", &1300, &(&second).stream_position()?);
    stage.same("position of the far duplicate", &1300, &(&far).stream_position()?);
    stage.same("position of an own description", &77, &apart.stream_position()?);

    log.write_all(b"after\n")?;
    stage.same("log", &"before\nafter\n".to_owned(), &fs::read_to_string(&log_path)?);
    both.write_all(b"four")?;
    let mut text = [0; 10];
    both.read_exact_at(&mut text, 0)?;
    stage.same("file to read and write", b"0123four89", &text);

    loop {
        let more = sys::next_entries(&directory, 400)?;
        if more.is_empty() {
            break;
        }
        names.extend(more);
    }
    names.retain(|name| name.starts_with("entry-"));
    names.sort();
    names.dedup();
    stage.same("entries of a directory read halfway", &40, &names.len());

    null.write_all(b"gone")?;
    stage.same("reading /dev/null", &0, &null.read(&mut [0; 4])?);
    stage.same("reading /dev/zero", &vec![0; 8], &take(&mut zero, 8)?);
    stage.holds("reading /dev/urandom", take(&mut random, 32)? != vec![0; 32]);
    for (file, minor) in [(&null, 3), (&zero, 5), (&random, 9)] {
        stage.same("device number", &libc::makedev(1, minor), &file.metadata()?.rdev());
    }

    // Numbers that were free are free again: nothing of the restore is left open.
    stage.same("number of the next descriptor", &next_before, &next_number()?);
    Ok(())
}

/// The number that the kernel deals out next: the lowest free one.
fn next_number() -> io::Result<i32> {
    Ok(File::open("/dev/null")?.as_raw_fd())
}

fn take(file: &mut File, bytes: usize) -> io::Result<Vec<u8>> {
    let mut found = vec![0; bytes];
    file.read_exact(&mut found)?;
    Ok(found)
}
