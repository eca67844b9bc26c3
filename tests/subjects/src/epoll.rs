//! Epoll sets: what they watch, how, and with which words.

use crate::stage::Stage;
use crate::sys;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

const IN: u32 = 0x001;

/// A set with level, edge and one-shot entries, another set inside, and 64-bit words.
pub(crate) fn epoll(stage: &'static Stage) -> io::Result<()> {
    let epoll = sys::epoll_create()?;
    let (level_in, mut level_out) = sys::pipe(libc::O_NONBLOCK)?;
    let edge = File::from(sys::eventfd(0, libc::EFD_NONBLOCK)?);
    let once = File::from(sys::eventfd(1, libc::EFD_NONBLOCK)?);
    let timer = sys::timerfd(libc::CLOCK_MONOTONIC, Duration::from_secs(1000), Duration::ZERO)?;
    let add = |target: &File, events: i32, data: u64| {
        sys::epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, target, events, data)
    };
    add(&level_in, libc::EPOLLIN, 0xffff_ffff_0000_0001)?;
    add(&edge, libc::EPOLLIN | libc::EPOLLET, 0x8000_0000_0000_0002)?;
    add(&once, libc::EPOLLIN | libc::EPOLLONESHOT, 3)?;
    add(&timer, libc::EPOLLIN, 4)?;

    // One set inside another, as event loops of guests have it.
    let inner = sys::epoll_create()?;
    let inner_target = File::from(sys::eventfd(0, libc::EFD_NONBLOCK)?);
    sys::epoll_ctl(&inner, libc::EPOLL_CTL_ADD, &inner_target, libc::EPOLLIN, 0x51)?;
    sys::epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, &inner, libc::EPOLLIN, 5)?;

    // Which means nothing, and is told all the same.
    sys::fcntl(&epoll, libc::F_SETFL, libc::O_NONBLOCK)?;

    // Takes the one-shot event, which disarms its entry; then something lies in the pipe.
    stage.same("one-shot event", &vec![(IN, 3)], &sys::epoll_wait(&epoll, 0)?);
    level_out.write_all(b"level")?;

    stage.across()?;

    let flags = sys::fcntl(&epoll, libc::F_GETFL, 0)?;
    stage.holds("flags of a set", flags & libc::O_NONBLOCK != 0);
    let level = vec![(IN, 0xffff_ffff_0000_0001)];
    stage.same("level event that was there", &level, &ready(&epoll)?);
    stage.same("level event again", &level, &ready(&epoll)?);
    (&level_in).read_exact(&mut [0; 5])?;
    stage.same("nothing left", &vec![], &ready(&epoll)?);

    (&edge).write_all(&1_u64.to_ne_bytes())?;
    let event = vec![(IN, 0x8000_0000_0000_0002)];
    stage.same("edge event", &event, &ready(&epoll)?);
    stage.same("edge event comes once", &vec![], &ready(&epoll)?);

    sys::epoll_ctl(&epoll, libc::EPOLL_CTL_MOD, &once, libc::EPOLLIN | libc::EPOLLONESHOT, 33)?;
    stage.same("one-shot event armed again", &vec![(IN, 33)], &ready(&epoll)?);
    stage.same("one-shot event comes once", &vec![], &ready(&epoll)?);

    (&inner_target).write_all(&1_u64.to_ne_bytes())?;
    stage.same("event of the inner set", &vec![(IN, 0x51)], &ready(&inner)?);
    stage.same("inner set is ready", &vec![(IN, 5)], &ready(&epoll)?);
    (&inner_target).read_exact(&mut [0; 8])?;

    sys::epoll_ctl(&epoll, libc::EPOLL_CTL_DEL, &timer, 0, 0)?;
    let missing = sys::epoll_ctl(&epoll, libc::EPOLL_CTL_DEL, &timer, 0, 0);
    let missing = missing.map_err(|error| error.raw_os_error());
    stage.same("deleting what is not watched", &Err(Some(libc::ENOENT)), &missing);
    Ok(())
}

/// Entries whose number was closed, closed and reused, added twice; and disabled ones.
pub(crate) fn epoll_odd(stage: &'static Stage) -> io::Result<()> {
    let epoll = sys::epoll_create()?;
    let event = || Ok::<File, io::Error>(File::from(sys::eventfd(0, libc::EFD_NONBLOCK)?));
    let (closed, reused, twice, disabled) = (event()?, event()?, event()?, event()?);
    let add = |number: &OwnedFd, events: i32, data: u64| {
        sys::epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, number, events, data)
    };
    // Known to the set by numbers that are about to be closed; the descriptions live on.
    let lost = sys::dup_to(&closed, 301, 0)?;
    add(&lost, libc::EPOLLIN, 1)?;
    drop(lost);
    let lost = sys::dup_to(&reused, 302, 0)?;
    add(&lost, libc::EPOLLIN, 2)?;
    drop(lost);
    let newcomer = File::from(sys::dup_to(&event()?, 302, libc::O_CLOEXEC)?);
    sys::epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, &newcomer, libc::EPOLLIN, 3)?;
    // One description under two numbers.
    let second = sys::dup_to(&twice, 303, 0)?;
    sys::epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, &twice, libc::EPOLLIN, 4)?;
    add(&second, libc::EPOLLIN, 5)?;
    // Fired once, and disabled since; its peer hangs up, which would fire an enabled one.
    let (hung_up, gone) = sys::socketpair(libc::SOCK_STREAM)?;
    add(&hung_up, libc::EPOLLIN | libc::EPOLLONESHOT, 6)?;
    drop(gone);
    stage.holds("the hang-up fires once", ready(&epoll)?.iter().any(|(_, data)| *data == 6));
    sys::epoll_ctl(&epoll, libc::EPOLL_CTL_ADD, &disabled, 0, 7)?;

    stage.across()?;

    let data = |epoll: &OwnedFd| -> io::Result<Vec<u64>> {
        Ok(ready(epoll)?.into_iter().map(|(_, data)| data).collect())
    };
    let signal = |mut file: &File| file.write_all(&1_u64.to_ne_bytes());
    stage.same("nothing is ready", &vec![], &data(&epoll)?);
    signal(&closed)?;
    stage.same("by a number that was closed", &vec![1], &data(&epoll)?);
    signal(&reused)?;
    stage.same("by a number that was reused", &vec![1, 2], &data(&epoll)?);
    signal(&newcomer)?;
    stage.same("by the newcomer", &vec![1, 2, 3], &data(&epoll)?);
    signal(&twice)?;
    stage.same("by two numbers", &vec![1, 2, 3, 4, 5], &data(&epoll)?);
    signal(&disabled)?;
    stage.same("by one without events", &vec![1, 2, 3, 4, 5], &data(&epoll)?);
    sys::epoll_ctl(&epoll, libc::EPOLL_CTL_MOD, &disabled, libc::EPOLLIN, 70)?;
    stage.same("with events", &vec![1, 2, 3, 4, 5, 70], &data(&epoll)?);
    sys::epoll_ctl(&epoll, libc::EPOLL_CTL_MOD, &hung_up, libc::EPOLLIN | libc::EPOLLONESHOT, 60)?;
    stage.holds("armed again", data(&epoll)?.contains(&60));
    Ok(())
}

/// What is ready now. A wait may be interrupted by whatever restored us (signal(7)).
fn ready(epoll: &OwnedFd) -> io::Result<Vec<(u32, u64)>> {
    loop {
        match sys::epoll_wait(epoll, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
