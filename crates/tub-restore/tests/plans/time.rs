//! Waits, clocks and timers.

use crate::sample::{checkpoint, facts, planned, runs};
use tub_model::{PosixTimer, RemainingWait};
use tub_restore::plan::{ClockPlan, Ids, PlanError, PlanFacts, PlanWishes, lower, plan};
use tub_restorer_abi::Stub;
use tub_units::NsPid;

/// A thread that waits goes on in a stub, which gives it back its own register afterwards.
#[test]
fn a_wait_goes_on_in_a_stub() {
    let mut checkpoint = checkpoint();
    let thread = &mut checkpoint.tasks[0].threads[1];
    thread.registers.general[12] = 5000;
    thread.wait =
        Some(RemainingWait { register: 12, remaining_ns: 1_499_999_999, milliseconds: true });
    let plan = plan(&checkpoint, &runs(), &facts(), PlanWishes::default()).unwrap();
    assert!(plan.to_string().contains("resume         1 waiting 1499999999 ns more"));
    let lowered = lower(&plan, &plan.tasks[0]).unwrap();
    let code = lowered.stubs.first_chunk().unwrap();
    let stub = Stub { register: 12, original: 5000, return_to: 0x40_1002 };
    assert_eq!(Stub::from_bytes(code), Some(stub));
    // Registers lie in the frame in the order of struct sigcontext: rdx, then rax, rcx, rsp, rip.
    let words: Vec<u64> = lowered
        .data
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect();
    let rip = words.iter().position(|&word| word == lowered.stubs_at).unwrap();
    assert_eq!(words[rip - 4], 1500);
    let blob = plan.tasks[0].blob;
    assert!(blob.contains(lowered.stubs_at + 31) && lowered.stubs_at + 32 <= lowered.header);
}

#[test]
fn the_clock_never_runs_backwards() {
    let saved = checkpoint().clocks;
    let (monotonic_ns, boottime_ns) = (saved.monotonic_ns, saved.boottime_ns);
    // Any host that has run for as long will do.
    let same = PlanFacts { time_namespace: false, monotonic_ns, boottime_ns, ..facts() };
    let plan = planned(&same, PlanWishes::default()).unwrap();
    assert_eq!(plan.clocks, ClockPlan::Jump);
    assert_eq!(plan.warnings[0], "clocks jump forward: no time namespace can be had here");
    for behind in [
        PlanFacts { monotonic_ns: monotonic_ns - 1, ..same.clone() },
        PlanFacts { boottime_ns: boottime_ns - 1, ..same },
    ] {
        let error = planned(&behind, PlanWishes::default()).err();
        assert_eq!(error, Some(PlanError::ClockBackwards { seconds: 1 }));
        let wishes = PlanWishes { clocks_may_go_back: true, ..PlanWishes::default() };
        let plan = planned(&behind, wishes).unwrap();
        assert_eq!(plan.clocks, ClockPlan::Jump);
        assert!(plan.warnings[0].starts_with("clocks go back by 1 s"), "{:?}", plan.warnings);
    }
}

fn timer(id: i32, target: i32) -> PosixTimer {
    PosixTimer {
        id,
        clock: 1,
        notify: 4,
        signal: 34,
        value: 0,
        target: NsPid(target),
        value_ns: 5,
        interval_ns: 0,
    }
}

/// Operations on timers in the plan of a process with these.
fn timer_ops(timers: &[PosixTimer], ids: Ids, timer_ids: bool) -> Vec<String> {
    let mut checkpoint = checkpoint();
    checkpoint.tasks[0].posix_timers = timers.to_vec();
    let facts = PlanFacts { timer_ids, ..facts() };
    let wishes = PlanWishes { ids, ..PlanWishes::default() };
    let plan = plan(&checkpoint, &runs(), &facts, wishes).unwrap();
    // It also has room for all of them.
    lower(&plan, &plan.tasks[0]).unwrap();
    let text = plan.to_string();
    text.lines().map(str::trim).filter(|line| line.contains("timer-")).map(str::to_owned).collect()
}

#[test]
fn older_kernels_count_up_to_the_id_of_a_timer() {
    let ops = timer_ops(&[timer(0, 100), timer(2, 101)], Ids::Keep, false);
    let expected = [
        "timer-create   0 clock 1 signal 34",
        "timer-create   1 clock 1 signal 34",
        "timer-delete   1",
        "timer-create   2 clock 1 signal 34",
        "timer-arm      0 in 5 ns every 0 ns",
        "timer-arm      2 in 5 ns every 0 ns",
    ];
    assert_eq!(ops, expected);
    timer_ops(&[timer(4000, 100)], Ids::Keep, false);
}

#[test]
fn a_thread_says_itself_which_id_its_timer_is_to_signal() {
    let ops = timer_ops(&[timer(0, 101), timer(1, 999)], Ids::New, true);
    assert_eq!(ops.iter().filter(|op| op.starts_with("timer-aim")).count(), 1, "{ops:?}");
    assert_eq!(ops.last().unwrap(), "timer-aim      0");
}
