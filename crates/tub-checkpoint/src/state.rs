//! What only a process itself can tell: the end of its heap, signal actions, timers, and its likes.
//!
//! In: a borrowed thread. Out: values. Invariant: asking changes nothing.
//! Not here: threads (`collect`), descriptors (`files`), what prctl(2) sets for good (`controls`).

use crate::caller::{Caller, low_half};
use crate::{Result, Survey, controls};
use tub_model::{Controls, IntervalTimer, PosixTimer, SignalAction};
use tub_units::HostPid;

/// What only the process itself can tell.
pub(crate) struct ProcessState {
    pub(crate) dumpable: u32,
    pub(crate) thp_disable: bool,
    pub(crate) child_subreaper: bool,
    pub(crate) controls: Controls,
    pub(crate) parent_death_signal: i32,
    pub(crate) brk: u64,
    pub(crate) signal_actions: Vec<SignalAction>,
    pub(crate) interval_timers: Vec<IntervalTimer>,
    pub(crate) posix_timers: Vec<PosixTimer>,
}

impl Caller<'_> {
    /// Asks for all of it.
    pub(crate) fn process(&mut self, survey: &Survey) -> Result<ProcessState> {
        // linux/prctl.h.
        const PR_GET_PDEATHSIG: u64 = 2;
        const PR_GET_DUMPABLE: u64 = 3;
        const PR_GET_CHILD_SUBREAPER: u64 = 37;
        const PR_GET_THP_DISABLE: u64 = 42;
        let scratch = self.scratch.0;
        let prctl = libc::SYS_prctl;
        let dumpable = self.ask("dumpable", prctl, [PR_GET_DUMPABLE, 0, 0, 0, 0, 0])?;
        let thp_disable = self.ask("THP", prctl, [PR_GET_THP_DISABLE, 0, 0, 0, 0, 0])? != 0;
        let args = [PR_GET_CHILD_SUBREAPER, scratch, 0, 0, 0, 0];
        self.ask("child subreaper", prctl, args)?;
        let [subreaper] = self.words()?;
        let args = [PR_GET_PDEATHSIG, scratch, 0, 0, 0, 0];
        self.ask("parent-death signal", prctl, args)?;
        let [parent_death_signal] = self.words()?;
        Ok(ProcessState {
            dumpable: u32::try_from(dumpable).unwrap_or(0),
            thp_disable,
            child_subreaper: low_half(subreaper) != 0,
            controls: controls::collect(self, survey)?,
            parent_death_signal: low_half(parent_death_signal).cast_signed(),
            brk: self.ask("end of the heap", libc::SYS_brk, [0; 6])?,
            signal_actions: self.signal_actions(survey)?,
            interval_timers: self.interval_timers()?,
            posix_timers: self.posix_timers(survey)?,
        })
    }

    fn signal_actions(&mut self, survey: &Survey) -> Result<Vec<SignalAction>> {
        // /proc says which ones are worth asking about: those that are ignored or caught. With the default
        // action, flags mean something for SIGCHLD only (SA_NOCLDWAIT: children leave no zombies).
        let set = survey.status.sig_ign | survey.status.sig_cgt | 1 << (libc::SIGCHLD - 1);
        let mut actions = Vec::new();
        for signal in (1..=64).filter(|signal| set >> (signal - 1) & 1 == 1) {
            let args = [signal, 0, self.scratch.0, 8, 0, 0];
            self.ask("signal action", libc::SYS_rt_sigaction, args)?;
            let [handler, flags, restorer, mask] = self.words()?;
            let signal = i32::try_from(signal).expect("at most 64");
            if (handler, flags) == (0, 0) {
                continue;
            }
            actions.push(SignalAction { signal, handler, flags, restorer, mask });
        }
        Ok(actions)
    }

    fn interval_timers(&mut self) -> Result<Vec<IntervalTimer>> {
        let mut timers = Vec::new();
        for which in 0..3 {
            let args = [which, self.scratch.0, 0, 0, 0, 0];
            self.ask("interval timer", libc::SYS_getitimer, args)?;
            let [every_s, every_us, in_s, in_us] = self.words()?;
            let value_us = in_s * 1_000_000 + in_us;
            if value_us > 0 {
                let interval_us = every_s * 1_000_000 + every_us;
                let which = i32::try_from(which).expect("at most 2");
                timers.push(IntervalTimer { which, value_us, interval_us });
            }
        }
        Ok(timers)
    }

    fn posix_timers(&mut self, survey: &Survey) -> Result<Vec<PosixTimer>> {
        let mut timers = Vec::new();
        for record in &survey.timers {
            let id = u64::from(record.id.cast_unsigned());
            let args = [id, self.scratch.0, 0, 0, 0, 0];
            self.ask("timer", libc::SYS_timer_gettime, args)?;
            let [every_s, every_ns, in_s, in_ns] = self.words()?;
            timers.push(PosixTimer {
                id: record.id,
                clock: record.clock,
                notify: record.notify,
                signal: record.signal,
                value: record.value,
                target: survey.inner_id(HostPid(record.target)),
                value_ns: in_s * 1_000_000_000 + in_ns,
                interval_ns: every_s * 1_000_000_000 + every_ns,
            });
        }
        timers.sort_by_key(|timer| timer.id);
        Ok(timers)
    }
}
