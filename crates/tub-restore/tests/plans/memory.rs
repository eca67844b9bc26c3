//! What a plan does with memory: rights at any time, guards, locks, seals, hot pages, lazy or exact.

use crate::sample::{checkpoint, discarder, facts, planned, range, runs, vma};
use tub_image::PageRun;
use tub_model::{Backing, DiscardKind, Limit, Lock};
use tub_restore::plan::{
    MemoryFacts, MemoryMode, PlanError, PlanFacts, PlanOp, PlanWishes, auto_memory, plan,
};
use tub_units::AddrRange;

#[test]
fn no_mapping_of_a_plan_touches_the_blob() {
    let plan = planned(&facts(), PlanWishes::default()).unwrap();
    for op in plan.tasks[0].programs.iter().flat_map(|program| &program.ops) {
        let touched = match op {
            PlanOp::MapAnonymous { range, .. }
            | PlanOp::MapPages { range, .. }
            | PlanOp::ReadPages { range, .. }
            | PlanOp::MapFile { range, .. }
            | PlanOp::Protect { range, .. }
            | PlanOp::Unmap(range) => *range,
            _ => continue,
        };
        assert!(!touched.overlaps(plan.tasks[0].blob), "{op}");
    }
}

#[test]
fn memory_is_never_writable_and_executable() {
    for memory in [MemoryMode::Lazy, MemoryMode::Eager] {
        for store_is_noexec in [false, true] {
            let facts = PlanFacts { store_is_noexec, ..facts() };
            let plan = planned(&facts, PlanWishes { memory, ..PlanWishes::default() }).unwrap();
            for op in plan.tasks[0].programs.iter().flat_map(|program| &program.ops) {
                if let PlanOp::MapAnonymous { protection, .. }
                | PlanOp::MapPages { protection, .. }
                | PlanOp::MapFile { protection, .. }
                | PlanOp::Protect { protection, .. } = op
                {
                    assert!(!(protection.write && protection.execute), "{op}");
                }
            }
        }
    }
}

/// What the kernel would have at the end of each operation, page by page, next to what the original
/// had there.
#[test]
fn no_page_has_a_right_too_many_at_any_time() {
    for (memory, store_is_noexec) in
        [(MemoryMode::Lazy, false), (MemoryMode::Lazy, true), (MemoryMode::Eager, false)]
    {
        let mut image = checkpoint();
        // Code in anonymous memory, as a just-in-time compiler leaves it, and code beside which it
        // writes on.
        let (code, both) = (range(0x2000_0000, 0x2001_0000), range(0x3000_0000, 0x3001_0000));
        let saved = [range(0x2000_0000, 0x2000_5000)];
        let at = image.tasks[0].vmas.len() - 2;
        image.tasks[0].vmas.insert(at, vma(both, "rwx", Backing::Anonymous, &[both]));
        image.tasks[0].vmas.insert(at, vma(code, "rx", Backing::Anonymous, &saved));
        let mut runs = runs();
        let stack = runs[0].pop().unwrap();
        runs[0].push(PageRun { range: saved[0], offset_bytes: 0x18000, hash: 0 });
        runs[0].push(PageRun { range: both, offset_bytes: 0x1d000, hash: 0 });
        runs[0].push(stack);
        let facts = PlanFacts { store_is_noexec, ..facts() };
        let wishes = PlanWishes { memory, ..PlanWishes::default() };
        let plan = plan(&image, &runs, &facts, wishes).unwrap();
        for op in plan.tasks[0].programs.iter().flat_map(|program| &program.ops) {
            let (PlanOp::MapAnonymous { range, protection, .. }
            | PlanOp::MapPages { range, protection, .. }
            | PlanOp::MapFile { range, protection, .. }
            | PlanOp::Protect { range, protection }) = op
            else {
                continue;
            };
            let original = image.tasks[0].vmas.iter().find(|vma| vma.range.covers(*range)).unwrap();
            let original = original.protection;
            let both = protection.write && protection.execute;
            assert!(!both || original.write && original.execute, "{op}");
            assert!(!protection.execute || original.execute, "{op}");
        }
        // And in the end each has what it had.
        for vma in image.tasks[0].vmas.iter().filter(|vma| vma.backing != Backing::Vdso) {
            let mut last = None;
            for op in &plan.tasks[0].programs[0].ops {
                if let PlanOp::MapAnonymous { range, protection, .. }
                | PlanOp::MapPages { range, protection, .. }
                | PlanOp::MapFile { range, protection, .. }
                | PlanOp::Protect { range, protection } = op
                    && range.contains(vma.range.start())
                {
                    last = Some(*protection);
                }
            }
            assert_eq!(last, Some(vma.protection), "{}", vma.range);
        }
    }
}

#[test]
fn guards_locks_and_seals_come_last_in_this_order() {
    let mut image = checkpoint();
    let heap = image.tasks[0].vmas.iter_mut().find(|vma| vma.range.start() == 0x1000_0000).unwrap();
    heap.guards = vec![range(0x1003_0000, 0x1003_1000)];
    heap.lock = Lock::OnFault;
    heap.sealed = true;
    let heap = heap.range;
    image.tasks[0].mm.lock_future = Lock::Resident;
    let limit = |soft, hard| Limit { resource: 8, soft, hard };
    let with_limit = |hard| PlanFacts { limits: vec![limit(4096, hard)], ..facts() };
    let ops = |facts: &PlanFacts| {
        let plan = plan(&image, &runs(), facts, PlanWishes::default()).unwrap();
        (plan.tasks[0].programs[0].ops.clone(), plan.warnings)
    };
    let (all, warnings) = ops(&with_limit(1 << 30));
    assert!(!warnings.iter().any(|warning| warning.contains("locked")), "{warnings:?}");
    let at = |op: &PlanOp| all.iter().position(|other| other == op).unwrap();
    let lock = PlanOp::Lock { range: heap, on_fault: true, untouchable: true };
    let order = [
        at(&PlanOp::SetLimit(limit(1 << 30, 1 << 30))),
        at(&PlanOp::Guard(range(0x1003_0000, 0x1003_1000))),
        at(&lock),
        at(&PlanOp::Seal(heap)),
        at(&PlanOp::LockFuture { on_fault: false }),
        // The limit is what it would have been.
        at(&PlanOp::SetLimit(limit(4096, 1 << 30))),
    ];
    assert!(order.is_sorted(), "{order:?}");

    let (all, warnings) = ops(&with_limit(4096));
    assert!(warnings.iter().any(|warning| warning.contains("ulimit -l")), "{warnings:?}");
    let locks = |op: &PlanOp| matches!(op, PlanOp::Lock { .. } | PlanOp::LockFuture { .. });
    assert!(!all.iter().any(locks));

    let without = MemoryFacts { guards: false, ..facts().memory };
    let facts = PlanFacts { memory: without, ..facts() };
    let error = plan(&image, &runs(), &facts, PlanWishes::default()).err();
    assert_eq!(error, Some(PlanError::Guards { range: heap }));
}

#[test]
fn hot_pages_are_shared_between_two_threads_and_only_private_writable_ones_are_taken() {
    // A page of the text, one before and three in the heap, one of the stack.
    let hot = vec![
        range(0x40_0000, 0x40_1000),
        range(0x0fff_f000, 0x1000_1000),
        range(0x1000_4000, 0x1000_6000),
        range(0x7ffe_0002_0000, 0x7ffe_0002_1000),
    ];
    let plan = planned(&facts(), PlanWishes { hot, ..PlanWishes::default() }).unwrap();
    let populated = |index: usize| -> Vec<AddrRange> {
        let ops = plan.tasks[0].programs[index].ops.iter();
        ops.filter_map(|op| if let PlanOp::Populate(range) = op { Some(*range) } else { None })
            .collect()
    };
    assert_eq!(populated(0), [range(0x1000_0000, 0x1000_1000)]);
    assert_eq!(populated(1), [range(0x1000_4000, 0x1000_6000)]);
}

#[test]
fn an_exact_restore_ignores_advice_about_hot_pages() {
    let hot = vec![range(0x1000_0000, 0x1000_1000)];
    let wishes = PlanWishes { hot, memory: MemoryMode::Eager, ..PlanWishes::default() };
    let plan = planned(&facts(), wishes).unwrap();
    let ops = plan.tasks[0].programs.iter().flat_map(|program| &program.ops);
    assert!(!ops.into_iter().any(|op| matches!(op, PlanOp::Populate(_))));
}

/// One program or library that may count on zeros is enough, whatever the runtime.
#[test]
fn memory_is_lazy_only_where_everything_that_discards_pages_bears_it() {
    let decided = |discarders: &[(&str, DiscardKind)]| {
        let mut image = checkpoint();
        let discarders = discarders.iter().map(|&(path, kind)| discarder(path, kind));
        image.tasks[0].discarders = discarders.collect();
        auto_memory(&image.tasks[0])
    };
    let known = ("/lib/libjvm.so", DiscardKind::Imports);
    for lazy in [decided(&[]), decided(&[known, ("/j/libnio.so", DiscardKind::Imports)])] {
        assert!(lazy.lazy && lazy.reason.contains("libjvm.so"), "{lazy}");
    }
    for other in [
        ("/app/libfast.so", DiscardKind::Imports),
        ("/lib/libjemalloc.so.2", DiscardKind::Imports),
        ("/opt/node", DiscardKind::Allocator),
        ("/opt/tool", DiscardKind::Static),
        ("/lib/libnio.so", DiscardKind::Unknown),
    ] {
        let exact = decided(&[known, other]);
        assert!(!exact.lazy && exact.reason.contains(other.0), "{exact}");
    }
    let mut unknown = checkpoint();
    unknown.tasks[0].vmas.retain(|vma| !matches!(vma.backing, Backing::PrivateFile { .. }));
    assert!(!auto_memory(&unknown.tasks[0]).lazy);
}

/// V8 makes memory executable that it has written, which the page store would forbid there.
#[test]
fn a_page_store_that_forbids_code_is_mapped_for_jvms_only() {
    let is_lazy = |runtime: &str, memory| {
        let mut image = checkpoint();
        image.tasks[0].discarders.clear();
        for vma in &mut image.tasks[0].vmas {
            if let Backing::PrivateFile { file, .. } = &mut vma.backing {
                runtime.clone_into(&mut file.path);
            }
        }
        let facts = PlanFacts { store_is_noexec: true, ..facts() };
        let wishes = PlanWishes { memory, ..PlanWishes::default() };
        plan(&image, &runs(), &facts, wishes).unwrap().tasks[0].memory.lazy
    };
    assert!(is_lazy("/lib/libjvm.so", MemoryMode::Auto));
    assert!(!is_lazy("/usr/bin/node", MemoryMode::Auto));
    assert!(is_lazy("/usr/bin/node", MemoryMode::Lazy));
}
