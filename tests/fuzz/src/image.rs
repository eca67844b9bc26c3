//! Images: the inventory as it lies on disk, its records, and the advice in `hot.tub`.
//!
//! In: bytes. Out: nothing.
//! Invariant: what opens can be planned and lowered for any host, and the plan stays within bounds:
//! it touches user addresses outside the blob, bytes of the page store that are there, files that
//! it has opened. Nobody has to look a second time.
//!
//! Checksums are no obstacle to a forger, so they are none here: `image-records` takes the records
//! and seals them itself. The sealing is written from FORMAT.md, and so checks that as well.

use crate::inspect::anatomy::Anatomy;
use crate::scratch::Scratch;
use crate::{Target, fixtures};
use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use tub_image::{HOT_FILE, INVENTORY_FILE, Image, PAGES_FILE};
use tub_model::{VdsoFacts, VdsoFunction};
use tub_restore::plan::{
    Ids, MappedFile, MemoryFacts, MemoryMode, PlanFacts, PlanOp, PlanWishes, RestorePlan, Stdio,
    TaskPlan, lower, plan,
};
use tub_units::{AddrRange, PAGE_BYTES};
use xxhash_rust::xxh3::xxh3_64;

pub(crate) fn targets() -> Vec<Target> {
    let records = Target::new("image-records", read_records, || {
        inventories().iter().map(|inventory| inventory[HEADER_BYTES..].to_vec()).collect()
    });
    vec![
        Target::new("hot", read_hot, hot_seeds),
        Target::new("image-file", read_file, inventories),
        Target { mutate: Some(mutate_records), ..records },
    ]
}

const HEADER_BYTES: usize = 64;
const FRAME_BYTES: usize = 16;

fn inventories() -> Vec<Vec<u8>> {
    fixtures(&["images/v1/inventory.tub"])
}

/// Length of the page store that goes with all inputs: that of the fixture.
fn pages_bytes() -> u64 {
    std::fs::metadata(crate::root().join("tests/fixtures/images/v1").join(PAGES_FILE))
        .expect("a fixture")
        .len()
}

/// An image directory whose inventory changes from input to input.
struct Stand {
    scratch: Scratch,
    inventory: File,
    hot: File,
    pages_bytes: u64,
}

thread_local! {
    static STAND: RefCell<Option<Stand>> = const { RefCell::new(None) };
}

impl Stand {
    fn with<T>(act: impl FnOnce(&mut Self) -> T) -> T {
        STAND.with_borrow_mut(|stand| act(stand.get_or_insert_with(Self::new)))
    }

    fn new() -> Self {
        let scratch = Scratch::new(&format!("image-{:?}", std::thread::current().id()));
        let create = |name| {
            let path = scratch.0.join(name);
            File::options().write(true).create_new(true).mode(0o600).open(path).expect("a file")
        };
        let (inventory, hot, pages) =
            (create(INVENTORY_FILE), create(HOT_FILE), create(PAGES_FILE));
        let pages_bytes = pages_bytes();
        pages.set_len(pages_bytes).expect("a length");
        Self { scratch, inventory, hot, pages_bytes }
    }

    fn open(&self, inventory: &[u8]) -> Option<Image> {
        put(&self.inventory, inventory);
        match Image::open(&self.scratch.0) {
            Ok(image) => Some(image),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                None
            }
        }
    }
}

fn put(file: &File, bytes: &[u8]) {
    file.set_len(bytes.len() as u64).expect("a length");
    file.write_all_at(bytes, 0).expect("room");
}

/// The whole file as it is: header, lengths, checksums.
fn read_file(bytes: &[u8]) {
    Stand::with(|stand| {
        if let Some(image) = stand.open(bytes) {
            be_planned(&image);
        }
    });
}

/// The records, sealed as a forger would seal them.
fn read_records(body: &[u8]) {
    Stand::with(|stand| {
        if let Some(image) = stand.open(&sealed(body, stand.pages_bytes)) {
            be_planned(&image);
        }
    });
}

/// FORMAT.md, "Header, 64 bytes".
fn sealed(body: &[u8], pages_bytes: u64) -> Vec<u8> {
    let machine: u32 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    let mut bytes = b"\x89TUB\r\n\x1a\n\x01\0\0\0".to_vec();
    bytes.extend(machine.to_le_bytes());
    bytes.extend(4096_u32.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    for word in [body.len() as u64, xxh3_64(body), pages_bytes, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    assert_eq!(bytes.len(), HEADER_BYTES);
    bytes.extend_from_slice(body);
    bytes
}

/// Changes one record and mends its length, or the order of records.
fn mutate_records(input: &mut Vec<u8>, random: u32, part: &mut dyn FnMut(&mut Vec<u8>)) {
    let mut frames = Vec::new();
    let mut rest = &input[..];
    while let Some((head, after)) = rest.split_at_checked(FRAME_BYTES) {
        let length = u64::from_le_bytes(*head[8..].first_chunk().unwrap());
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(after.len());
        let (payload, after) = after.split_at(length);
        frames.push((head[..8].to_vec(), payload.to_vec()));
        rest = after;
    }
    if frames.is_empty() {
        return part(input);
    }
    let random = random as usize;
    let (one, other) = (random / 64 % frames.len(), random / 8192 % frames.len());
    match random % 64 {
        0 => frames.swap(one, other),
        1 => drop(frames.remove(one)),
        2 => frames.push(frames[one].clone()),
        3 => part(&mut frames[one].0),
        _ => part(&mut frames[one].1),
    }
    input.clear();
    for (mut head, payload) in frames {
        head.resize(8, 0);
        input.extend(head);
        input.extend((payload.len() as u64).to_le_bytes());
        input.extend(payload);
    }
}

fn hot_seeds() -> Vec<Vec<u8>> {
    let ranges = [(0x40_1000_u64, 0x40_2000_u64), (0x4c_c000, 0x4d_2000)];
    vec![
        ranges
            .iter()
            .flat_map(|(start, end)| [start.to_le_bytes(), end.to_le_bytes()])
            .flatten()
            .collect(),
    ]
}

/// The ranges of `hot.tub`, sealed; and the same bytes as the whole file.
fn read_hot(bytes: &[u8]) {
    Stand::with(|stand| {
        let image = stand.open(&inventories()[0]).expect("the fixture is an image");
        let mut sealed = b"\x89TUBHOT\x01".to_vec();
        sealed.extend(image.checkpoint.provenance.image_id);
        sealed.extend_from_slice(bytes);
        sealed.extend(xxh3_64(&sealed).to_le_bytes());
        for file in [&sealed[..], bytes] {
            put(&stand.hot, file);
            let mut end = 0;
            for range in image.hot() {
                assert!(range.start() >= end && range.is_page_aligned() && !range.is_empty());
                end = range.end();
            }
            be_planned(&image);
        }
        put(&stand.hot, b"");
    });
}

/// Plans `image` in each way, on a host that allows everything and on one that allows little.
fn be_planned(image: &Image) {
    let generous = PlanFacts {
        user_namespace: false,
        time_namespace: true,
        set_executable: true,
        clone3: true,
        store_is_noexec: false,
        monotonic_ns: u64::MAX,
        boottime_ns: u64::MAX,
        uid: 0,
        gid: 0,
        groups: Some(vec![0, 27]),
        capabilities: [u64::MAX; 3],
        limits: (0..16)
            .map(|resource| tub_model::Limit { resource, soft: 1024, hard: 4096 })
            .collect(),
        timer_ids: true,
        other_vdso: None,
        memory: MemoryFacts { guards: true, droppable: true, seals: true },
        blob_bytes: 3000,
        terminal: false,
    };
    let mean = PlanFacts {
        user_namespace: true,
        set_executable: false,
        clone3: false,
        store_is_noexec: true,
        uid: 1000,
        gid: 1000,
        capabilities: [0; 3],
        limits: Vec::new(),
        timer_ids: false,
        other_vdso: Some(VdsoFacts {
            hash: 1,
            span_bytes: 0x8000,
            vvar_bytes: 0x6000,
            functions: vec![VdsoFunction { name: "__vdso_time".to_owned(), offset_bytes: 0x700 }],
        }),
        memory: MemoryFacts { guards: false, droppable: false, seals: false },
        ..generous.clone()
    };
    let ways = [
        (&generous, Ids::Keep, MemoryMode::Lazy, Stdio::Image, false),
        (&generous, Ids::New, MemoryMode::Eager, Stdio::Inherit, false),
        (&generous, Ids::Keep, MemoryMode::Lazy, Stdio::Inherit, true),
        (&mean, Ids::Keep, MemoryMode::Lazy, Stdio::Inherit, false),
        (&mean, Ids::New, MemoryMode::Auto, Stdio::Image, true),
    ];
    for index in 0..image.checkpoint.tasks.len() {
        let anatomy = Anatomy::of(image, index);
        assert_eq!(anatomy.mappings.len(), image.checkpoint.tasks[index].vmas.len());
    }
    for (facts, ids, memory, stdio, standby) in ways {
        let wishes = PlanWishes {
            ids,
            memory,
            stdio,
            detach: false,
            at_once: true,
            clocks_may_go_back: false,
            standby,
            hot: image.hot(),
            mailbox: if image.checkpoint.coordination.is_some() {
                vec![1; 100]
            } else {
                Vec::new()
            },
            restorer: tub_units::HostPid(1),
        };
        match plan(&image.checkpoint, &image.runs, facts, wishes) {
            Ok(plan) => {
                check_scratch(&plan, image.pages_bytes);
                for task in &plan.tasks {
                    check(&plan, task, image.pages_bytes, facts);
                    let lowered = lower(&plan, task).expect("there is memory for it");
                    assert!(task.blob.contains(lowered.header));
                    assert!(task.blob.contains(lowered.stack - 1));
                }
                assert!(!plan.to_string().is_empty());
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// End of what a process can map: Documentation/arch/x86/x86_64/mm.rst.
const USER_END: u64 = 0x7fff_ffff_f000;

fn in_store(range: AddrRange, offset: u64, pages_bytes: u64) {
    let end = offset.checked_add(range.len());
    assert!(end.is_some_and(|end| end <= pages_bytes), "{range} from {offset}");
}

fn check(plan: &RestorePlan, task: &TaskPlan, pages_bytes: u64, facts: &PlanFacts) {
    let apart = |range: AddrRange| {
        assert!(range.end() <= USER_END && range.is_page_aligned(), "{range} is no user's");
        assert!(!range.overlaps(task.blob), "{range} overlaps the blob at {}", task.blob);
    };
    for op in task.programs.iter().flat_map(|program| &program.ops) {
        match op {
            PlanOp::MapAnonymous { range, .. }
            | PlanOp::Protect { range, .. }
            | PlanOp::Advise { range, .. }
            | PlanOp::CheckMapped(range)
            | PlanOp::Populate(range)
            | PlanOp::Touch(range)
            | PlanOp::Guard(range)
            | PlanOp::Lock { range, .. }
            | PlanOp::Seal(range)
            | PlanOp::Unmap(range) => apart(*range),
            PlanOp::MapPages { range, offset_bytes, .. }
            | PlanOp::ReadPages { range, offset_bytes } => {
                apart(*range);
                in_store(*range, *offset_bytes, pages_bytes);
                assert!(offset_bytes.is_multiple_of(PAGE_BYTES));
            }
            PlanOp::AwaitLetter { at, bytes } => {
                let range = AddrRange::with_len(at.0, *bytes);
                assert!(range.is_some_and(|range| !range.overlaps(task.blob)), "{op}");
            }
            PlanOp::Write { at, bytes } => {
                let range = AddrRange::with_len(at.0, bytes.len() as u64);
                assert!(range.is_some_and(|range| !range.overlaps(task.blob)), "{op}");
            }
            PlanOp::MapFile { range, file, offset_bytes, .. } => {
                apart(*range);
                assert!(*file < plan.mapped_files.len());
                assert!(offset_bytes.is_multiple_of(PAGE_BYTES));
            }
            PlanOp::SetCapabilities(capabilities) => {
                let [effective, permitted, inheritable] = *capabilities;
                assert!(effective & !permitted == 0, "effective beyond permitted");
                assert!(permitted & !facts.capabilities[1] == 0, "a capability was gained");
                assert!(inheritable & !facts.capabilities[2] == 0, "a capability was gained");
            }
            PlanOp::SetUids(_) | PlanOp::SetGids(_) | PlanOp::SetGroups(_) => {
                assert!(facts.uid == 0, "an ordinary user became another one");
            }
            _ => {}
        }
    }
}

fn check_scratch(plan: &RestorePlan, pages_bytes: u64) {
    for file in &plan.mapped_files {
        if let MappedFile::Scratch { size_bytes, start, content, .. } = file {
            for run in content {
                in_store(run.range, run.offset_bytes, pages_bytes);
                let end = run.range.end().checked_sub(*start);
                assert!(end.is_some_and(|end| end <= *size_bytes), "content beyond a scratch file");
            }
        }
    }
}
