//! Whole plans as golden text, of one process and of a tree; and what holds for every plan.

use crate::sample::{checkpoint, facts, planned, runs, thread};
use tub_image::PageRun;
use tub_model::{Checkpoint, Fd, FileKind, FileOwner, Task, Zombie};
use tub_restore::plan::{
    Ids, Meeting, MemoryMode, PlanError, PlanFacts, PlanOp, PlanWishes, RestorePlan, Stdio, lower,
    plan,
};
use tub_units::{FdNumber, NsPid, RemoteAddr};

pub(crate) fn assert_golden(name: &str, actual: &str) {
    let path = format!("{}/tests/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, actual, "{path} differs; read the difference, then BLESS=1");
}

#[test]
fn a_lazy_restore_with_kept_ids() {
    let wishes = PlanWishes { mailbox: vec![1; 64], ..PlanWishes::default() };
    assert_golden("lazy-keep", &planned(&facts(), wishes).unwrap().to_string());
}

#[test]
fn an_exact_restore_with_new_ids_and_no_namespaces() {
    let facts = PlanFacts {
        user_namespace: false,
        time_namespace: false,
        set_executable: false,
        clone3: false,
        ..facts()
    };
    let wishes = PlanWishes {
        ids: Ids::New,
        memory: MemoryMode::Eager,
        stdio: Stdio::Inherit,
        ..PlanWishes::default()
    };
    assert_golden("exact-new", &planned(&facts, wishes).unwrap().to_string());
}

/// The JVM with a worker that shares its log and holds the other end of its pipe, in a group whose
/// leader has gone, and that worker's child, stopped, in a session of its own; and a zombie.
fn tree() -> (Checkpoint, Vec<Vec<PageRun>>) {
    let mut image = checkpoint();
    let fd = |number, file| Fd { number: FdNumber(number), close_on_exec: false, file };
    let main = image.tasks[0].clone();
    let child = |pid, parent| Task {
        pid: NsPid(pid),
        parent: Some(parent),
        vmas: vec![main.vmas[3].clone()],
        threads: vec![thread(pid, "worker")],
        signal_actions: Vec::new(),
        interval_timers: Vec::new(),
        ..main.clone()
    };
    let worker = Task {
        group: NsPid(150),
        parent_death_signal: 15,
        fds: vec![fd(1, 3), fd(2, 1), fd(4, 2), fd(7, 4)],
        ..child(200, 0)
    };
    let nested = Task {
        group: NsPid(300),
        session: NsPid(300),
        stopped: Some(19),
        fds: vec![fd(0, 0)],
        ..child(300, 1)
    };
    image.tasks[0].fds.retain(|fd| fd.file != 3);
    image.tasks.extend([worker, nested]);
    image.zombies.push(Zombie {
        pid: NsPid(201),
        parent: 0,
        group: NsPid(100),
        session: NsPid(100),
        name: "sh".to_owned(),
        status: 0x100,
    });
    let mut runs = runs();
    let heap = runs[0][2];
    runs.extend([vec![heap], vec![heap]]);
    (image, runs)
}

#[test]
fn a_tree_with_kept_ids() {
    let (image, runs) = tree();
    let plan = plan(&image, &runs, &facts(), PlanWishes::default()).unwrap();
    assert_golden("tree-keep", &plan.to_string());
}

#[test]
fn a_tree_with_new_ids() {
    let (image, runs) = tree();
    let wishes = PlanWishes { ids: Ids::New, stdio: Stdio::Image, ..PlanWishes::default() };
    let plan = plan(&image, &runs, &facts(), wishes).unwrap();
    assert_golden("tree-new", &plan.to_string());
}

#[test]
fn a_session_that_can_only_be_inherited_is_refused() {
    let (mut image, runs) = tree();
    image.tasks[1].session = NsPid(300);
    image.tasks[1].group = NsPid(300);
    let error = plan(&image, &runs, &facts(), PlanWishes::default()).err();
    assert_eq!(error, Some(PlanError::Session { pid: 200, session: 300 }));
}

#[test]
fn every_lowered_plan_fits_its_range() {
    for memory in [MemoryMode::Lazy, MemoryMode::Eager] {
        let wishes = PlanWishes { memory, mailbox: vec![3; 5000], ..PlanWishes::default() };
        let plan = planned(&facts(), wishes).unwrap();
        let task = &plan.tasks[0];
        let lowered = lower(&plan, task).unwrap();
        assert!(lowered.data.len() as u64 <= task.blob.len() - plan.code_bytes);
    }
}

#[test]
fn nothing_that_may_fail_comes_after_the_point_of_no_return() {
    for ids in [Ids::Keep, Ids::New] {
        let wishes = PlanWishes { ids, ..PlanWishes::default() };
        let plan = planned(&facts(), wishes).unwrap();
        let [main, other] = &plan.tasks[0].programs[..] else { panic!("two threads") };
        let go = |op: &&PlanOp| **op != PlanOp::AwaitGo;
        for op in main.ops.iter().skip_while(go) {
            let harmless = matches!(
                op,
                PlanOp::AwaitGo
                    | PlanOp::ArmPosixTimer(_)
                    | PlanOp::SetIntervalTimer(_)
                    | PlanOp::Close { .. }
                    | PlanOp::Meet(_)
                    | PlanOp::Resume { .. }
            );
            assert!(harmless, "{op}");
        }
        let go = |op: &&PlanOp| **op != PlanOp::Meet(Meeting::AllGo);
        for op in other.ops.iter().skip_while(go) {
            assert!(matches!(op, PlanOp::Meet(_) | PlanOp::Resume { .. }), "{op}");
        }
    }
}

/// Until the main thread has made the memory, all that others know is the blob.
#[test]
fn threads_look_at_no_memory_before_it_is_there() {
    let wishes = PlanWishes { ids: Ids::New, ..PlanWishes::default() };
    let plan = planned(&facts(), wishes).unwrap();
    let [main, other] = &plan.tasks[0].programs[..] else { panic!("two threads") };
    let at = |op: &PlanOp| main.ops.iter().position(|other| other == op).unwrap();
    let spawned = at(&PlanOp::Spawn { thread: 1, tid: None });
    let mapped = main.ops.iter().rposition(|op| matches!(op, PlanOp::ReadPages { .. })).unwrap();
    assert!(spawned < mapped && mapped < at(&PlanOp::Meet(Meeting::Mapped)));
    let looks = |op: &PlanOp| {
        let looks = [PlanOp::StoreTid(other_word(&plan))].contains(op);
        looks || matches!(op, PlanOp::RegisterRseq(_) | PlanOp::Populate(_))
    };
    let before = |op: &&PlanOp| **op != PlanOp::Meet(Meeting::Mapped);
    assert_eq!(other.ops.iter().take_while(before).filter(|op| looks(op)).count(), 0);
    assert_eq!(other.ops.iter().filter(|op| looks(op)).count(), 2);
}

/// Where the second thread's id is kept.
fn other_word(plan: &RestorePlan) -> RemoteAddr {
    plan.tasks[0].threads[1].clear_child_tid
}

/// Only one that is alone, and ends with who makes it from the beginning, is told before it is laid out.
#[test]
fn who_goes_at_once() {
    let at_once = |wishes: PlanWishes| {
        planned(&facts(), PlanWishes { at_once: true, ..wishes }).unwrap().at_once
    };
    assert!(at_once(PlanWishes::default()));
    assert!(!at_once(PlanWishes { detach: true, ..PlanWishes::default() }));
    assert!(!at_once(PlanWishes { ids: Ids::New, ..PlanWishes::default() }));
    assert!(!at_once(PlanWishes { standby: true, ..PlanWishes::default() }));
    assert!(!planned(&facts(), PlanWishes::default()).unwrap().at_once);
    let (checkpoint, runs) = tree();
    let wishes = PlanWishes { at_once: true, ..PlanWishes::default() };
    assert!(!plan(&checkpoint, &runs, &facts(), wishes).unwrap().at_once);
}

/// What has no events and has not fired would be ready again and again, for ever.
#[test]
fn an_epoll_set_is_only_drained_of_what_disables_itself() {
    const ONE_SHOT: u32 = 1 << 30;
    for (events, drained) in [(0, false), (1 << 31, false), (ONE_SHOT, true), (ONE_SHOT | 1, false)]
    {
        let mut image = checkpoint();
        let targets = image.files.iter_mut().find_map(|file| match &mut file.kind {
            FileKind::Epoll { targets } => Some(targets),
            _ => None,
        });
        targets.unwrap()[0].events = events;
        let plan = plan(&image, &runs(), &facts(), PlanWishes::default()).unwrap();
        assert_eq!(plan.to_string().contains("EpollDrain"), drained, "{events:x}");
    }
}

/// A signal that was chosen before anybody was to get it (`F_SETSIG`), whatever the ids are.
#[test]
fn a_description_that_tells_nobody_keeps_its_signal() {
    for ids in [Ids::Keep, Ids::New] {
        let mut image = checkpoint();
        image.files[2].owner = Some(FileOwner { kind: 1, id: NsPid(0), signal: 34 });
        let wishes = PlanWishes { ids, ..PlanWishes::default() };
        let plan = plan(&image, &runs(), &facts(), wishes).unwrap().to_string();
        assert!(plan.contains("owner          4 kind 1 id 0 signal 34"), "{plan}");
    }
}
