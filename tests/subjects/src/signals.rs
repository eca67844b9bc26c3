//! Signals: actions, masks, alternate stacks with a handler running on one, and what is pending
//! with everything that was sent along.

use crate::stage::Stage;
use crate::sys::{self, Mapping, Taken};
use crate::thread;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

/// Calls of the counting handler.
static COUNTED: AtomicU32 = AtomicU32::new(0);

/// Where the handler on the alternate stack is: 0 not entered, 1 inside, 2 told to leave, 3 gone.
static ON_STACK: AtomicU32 = AtomicU32::new(0);

/// `ss_flags` and `ss_sp` as seen by the handler on the alternate stack.
static STACK_FLAGS: AtomicI32 = AtomicI32::new(-1);
static STACK_ADDRESS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    COUNTED.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn stay(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    ON_STACK.store(1, Ordering::SeqCst);
    while ON_STACK.load(Ordering::SeqCst) == 1 {
        std::hint::spin_loop();
    }
    let (address, _, flags) = sys::alternate_stack_in_force();
    STACK_FLAGS.store(flags, Ordering::SeqCst);
    STACK_ADDRESS.store(address, Ordering::SeqCst);
}

/// Everything about signals.
pub(crate) fn signals(stage: &'static Stage) -> io::Result<()> {
    let (queued, directed) = (libc::SIGRTMIN() + 3, libc::SIGRTMIN() + 4);
    // Blocked before there are threads, so that they inherit it and the signals stay pending.
    sys::block(&[queued, directed, libc::SIGTTIN]);

    let masked = [libc::SIGHUP, libc::SIGRTMAX()];
    sys::handle(libc::SIGUSR1, count, libc::SA_RESTART, &masked)?;
    sys::handle(libc::SIGUSR2, stay, libc::SA_ONSTACK, &[])?;
    sys::set_action(libc::SIGQUIT, libc::SIG_IGN, 0, &[])?;
    // The one signal whose default action takes flags: children leave no zombies.
    sys::set_action(libc::SIGCHLD, libc::SIG_DFL, libc::SA_NOCLDWAIT, &[])?;
    let signals =
        [libc::SIGUSR1, libc::SIGUSR2, libc::SIGQUIT, libc::SIGPIPE, libc::SIGTERM, libc::SIGCHLD];
    let actions = || signals.map(|signal| sys::action(signal).map_err(|e| e.raw_os_error()));
    let actions_before = actions();

    let on_stack = thread::spawn(move || handler_on_alternate_stack(stage));
    let directed_at = thread::spawn(move || pending_for_a_thread(stage, directed));
    while ON_STACK.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    let process = i32::try_from(std::process::id()).expect("a pid is an int");
    for value in [71, 72, 73] {
        sys::queue(process, queued, value)?;
    }
    // An ordinary signal, which is kept once however often it is sent.
    sys::queue(process, libc::SIGTTIN, 74)?;
    let mask_before = sys::blocked();

    stage.across()?;

    stage.same("signal mask of main", &mask_before, &sys::blocked());
    stage.same("signal actions", &actions_before, &actions());
    for value in [71, 72, 73] {
        let expected = Some(Taken { signal: queued, code: libc::SI_QUEUE, value });
        stage.same("queued for the process", &expected, &take_soon(queued)?);
    }
    let expected = Some(Taken { signal: libc::SIGTTIN, code: libc::SI_QUEUE, value: 74 });
    stage.same("pending for the process", &expected, &take_soon(libc::SIGTTIN)?);
    stage.same("nothing more is pending", &None, &sys::take(&[queued], Duration::ZERO)?);

    ON_STACK.store(2, Ordering::SeqCst);
    stage.holds("thread on the alternate stack ends", on_stack.join().is_ok());
    stage.holds("thread with pending signals ends", directed_at.join().is_ok());

    let counted = COUNTED.load(Ordering::SeqCst);
    sys::raise(libc::SIGUSR1)?;
    sys::raise(libc::SIGUSR1)?;
    stage.same("calls of the handler", &(counted + 2), &COUNTED.load(Ordering::SeqCst));
    sys::raise(libc::SIGQUIT)?;
    Ok(())
}

/// SIGUSR2 finds this thread in user code; its handler stays on the alternate stack across the
/// checkpoint and then returns to where it came from.
fn handler_on_alternate_stack(stage: &'static Stage) {
    let result = (|| {
        let mut memory = Mapping::anonymous(16, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        let (address, size, flags) = sys::alternate_stack(Some(&mut memory))?;
        sys::block(&[libc::SIGWINCH, libc::SIGURG]);
        let mask = sys::blocked();
        let locals = std::hint::black_box([0x1111_u64, 0x2222, 0x3333]);
        sys::raise(libc::SIGUSR2)?;
        stage.same("locals under a handler", &[0x1111_u64, 0x2222, 0x3333], &locals);
        stage.same("mask after the handler", &mask, &sys::blocked());
        let inside = STACK_FLAGS.load(Ordering::SeqCst);
        stage.same("flags inside the handler", &libc::SS_ONSTACK, &inside);
        let inside = STACK_ADDRESS.load(Ordering::SeqCst);
        stage.same("alternate stack inside the handler", &address, &inside);
        let after = sys::alternate_stack(None)?;
        stage.same("alternate stack after the handler", &(address, size, flags), &after);
        // It is entered a second time, and does not stay: ON_STACK is put to 1 and back by itself.
        let second = thread::spawn(|| {
            while ON_STACK.load(Ordering::SeqCst) != 1 {
                thread::yield_now();
            }
            ON_STACK.store(3, Ordering::SeqCst);
        });
        sys::raise(libc::SIGUSR2)?;
        stage.holds("handler works again on its stack", second.join().is_ok());
        Ok::<(), io::Error>(())
    })();
    stage.works("alternate stack", result);
}

/// Signals for one thread stay that thread's.
fn pending_for_a_thread(stage: &'static Stage, signal: i32) {
    let result = (|| {
        sys::queue_to(sys::this_thread(), signal, 81)?;
        sys::queue_to(sys::this_thread(), signal, 82)?;
        while !stage.is_over() {
            thread::sleep(Duration::from_millis(5));
        }
        // Nobody else can take them.
        let elsewhere = thread::spawn(move || sys::take(&[signal], Duration::ZERO));
        let stolen = elsewhere.join().map_err(|_| io::Error::other("a thread panicked"))??;
        stage.same("taken by another thread", &None, &stolen);
        for value in [81, 82] {
            let expected = Some(Taken { signal, code: libc::SI_QUEUE, value });
            stage.same("queued for a thread", &expected, &take_soon(signal)?);
        }
        Ok::<(), io::Error>(())
    })();
    stage.works("signals pending for a thread", result);
}

fn take_soon(signal: i32) -> io::Result<Option<Taken>> {
    sys::take(&[signal], Duration::from_secs(1))
}
