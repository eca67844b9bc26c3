//! What is written comes back, and runs are what the module says.

use super::{Scratch, sample, write};
use crate::pages::PageWriter;
use crate::{Image, PageRun, Replace, Zeros};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use tub_units::{AddrRange, RemoteAddr};

#[test]
fn a_checkpoint_with_everything_comes_back_as_it_was() {
    let scratch = Scratch::new();
    let checkpoint = sample::checkpoint();
    let dir = scratch.path("image");
    let summary = write(&dir, Replace::Never, &checkpoint).unwrap();
    let image = Image::open(&dir).unwrap();
    assert_eq!(image.checkpoint, checkpoint);
    assert_eq!(image.runs.iter().flatten().count(), summary.runs);
    assert_eq!(image.pages_bytes, summary.pages_bytes);
    assert_eq!(image.inventory_bytes, summary.inventory_bytes);
    assert_eq!(image.unread, []);
    image.verify_pages().unwrap();
    assert_eq!(scratch.names(), ["image"]);

    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(dir.clone()), 0o700);
    assert_eq!(mode(dir.join(crate::INVENTORY_FILE)), 0o600);
    assert_eq!(mode(dir.join(crate::PAGES_FILE)), 0o600);
}

#[test]
fn pages_come_back_at_their_addresses_and_everything_else_saved_is_zero() {
    let scratch = Scratch::new();
    let checkpoint = sample::checkpoint();
    write(&scratch.path("image"), Replace::Never, &checkpoint).unwrap();
    let image = Image::open(&scratch.path("image")).unwrap();
    let tasks = checkpoint.tasks.iter().zip(&image.runs);
    let saved = tasks.flat_map(|(task, runs)| {
        task.vmas.iter().flat_map(|vma| &vma.saved).map(move |saved| (saved, runs))
    });
    for (saved, runs) in saved {
        let mut bytes = vec![0; usize::try_from(saved.len()).unwrap()];
        for PageRun { range, offset_bytes, .. } in runs {
            if saved.covers(*range) {
                let at = usize::try_from(range.start() - saved.start()).unwrap();
                let piece = &mut bytes[at..at + usize::try_from(range.len()).unwrap()];
                image.pages.read_exact_at(piece, *offset_bytes).unwrap();
            }
        }
        assert!(bytes == sample::memory(*saved), "{saved}");
    }
}

#[test]
fn an_image_may_be_opened_through_a_link_to_its_directory() {
    let scratch = Scratch::new();
    write(&scratch.path("v1"), Replace::Never, &sample::checkpoint()).unwrap();
    std::os::unix::fs::symlink("v1", scratch.path("current")).unwrap();
    Image::open(&scratch.path("current")).unwrap();
}

/// A page writer on a file of its own, and what it wrote.
fn written(act: impl FnOnce(&mut PageWriter)) -> (Vec<PageRun>, u64, File) {
    let scratch = Scratch::new();
    let path = scratch.path("pages");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let mut writer = PageWriter::new(file.try_clone().unwrap(), path);
    act(&mut writer);
    writer.finish_task().unwrap();
    let mut pages = writer.finish().unwrap();
    (pages.runs.remove(0), pages.pages_bytes, file)
}

/// Pages, by letter: `.` is zeros.
fn bytes(letters: &str) -> Vec<u8> {
    let fill = |letter| if letter == b'.' { 0 } else { letter };
    letters.bytes().flat_map(|letter| [fill(letter); 4096]).collect()
}

/// Start and end in pages, and the offset in pages.
fn shape(runs: &[PageRun]) -> Vec<(u64, u64, u64)> {
    runs.iter()
        .map(|run| (run.range.start() / 4096, run.range.end() / 4096, run.offset_bytes / 4096))
        .collect()
}

const START: RemoteAddr = RemoteAddr(16 * 4096);

#[test]
fn zeros_at_the_ends_are_dropped_and_short_ones_inside_are_holes() {
    let letters = "..aa...b............";
    let (runs, length, file) =
        written(|writer| writer.append(START, &bytes(letters), Zeros::Implied).unwrap());
    assert_eq!(shape(&runs), [(18, 24, 0)]);
    assert_eq!(length, 6 * 4096);
    let mut back = vec![1; 6 * 4096];
    file.read_exact_at(&mut back, 0).unwrap();
    assert!(back == bytes("aa...b"));
    assert_eq!(file.metadata().unwrap().blocks(), 3 * 8);
    assert_eq!(runs[0].hash, crate::layout::hash(&bytes("aa...b")));
}

#[test]
fn sixteen_zero_pages_end_a_run_even_across_two_appends() {
    let (runs, length, _) = written(|writer| {
        writer.append(START, &bytes("a........"), Zeros::Implied).unwrap();
        writer.append(RemoteAddr(25 * 4096), &bytes("........b"), Zeros::Implied).unwrap();
    });
    assert_eq!(shape(&runs), [(16, 17, 0), (33, 34, 1)]);
    assert_eq!(length, 2 * 4096);
    let (runs, _, _) = written(|writer| {
        writer.append(START, &bytes("a........"), Zeros::Implied).unwrap();
        writer.append(RemoteAddr(25 * 4096), &bytes(".......b"), Zeros::Implied).unwrap();
    });
    assert_eq!(shape(&runs), [(16, 33, 0)]);
}

#[test]
fn zeros_that_are_content_stay() {
    let letters = "..a..................b..";
    let (runs, length, file) = written(|writer| {
        writer.append(START, &bytes(letters), Zeros::Content).unwrap();
        writer.finish_range().unwrap();
        writer.append(RemoteAddr(40 * 4096), &bytes("...."), Zeros::Content).unwrap();
    });
    assert_eq!(shape(&runs), [(16, 40, 0), (40, 44, 24)]);
    assert_eq!(length, 28 * 4096);
    assert_eq!(file.metadata().unwrap().blocks(), 2 * 8);
    assert_eq!(runs[1].hash, crate::layout::hash(&bytes("....")));
}

#[test]
fn a_gap_and_another_kind_of_zeros_both_end_a_run() {
    let (runs, _, _) = written(|writer| {
        writer.append(START, &bytes("ab"), Zeros::Implied).unwrap();
        writer.append(RemoteAddr(18 * 4096), &bytes("c"), Zeros::Implied).unwrap();
        writer.append(RemoteAddr(19 * 4096), &bytes("d"), Zeros::Content).unwrap();
        writer.append(RemoteAddr(21 * 4096), &bytes("e"), Zeros::Content).unwrap();
        writer.finish_range().unwrap();
        writer.append(RemoteAddr(22 * 4096), &bytes("f"), Zeros::Content).unwrap();
    });
    assert_eq!(shape(&runs), [(16, 19, 0), (19, 20, 3), (21, 22, 4), (22, 23, 5)]);
}

#[test]
fn more_than_a_buffer_comes_back_in_order() {
    let mut memory = bytes("abc");
    memory.extend(vec![7; 3 << 20]);
    memory.extend(bytes(".d"));
    let (runs, _, file) = written(|writer| {
        writer.append(START, &memory[..8192], Zeros::Implied).unwrap();
        writer.append(RemoteAddr(18 * 4096), &memory[8192..], Zeros::Implied).unwrap();
    });
    assert_eq!(runs.len(), 1);
    let mut back = vec![1; memory.len()];
    file.read_exact_at(&mut back, 0).unwrap();
    assert!(back == memory);
    assert_eq!(runs[0].range, AddrRange::with_len(START.0, memory.len() as u64).unwrap());
}

#[test]
fn half_pages_and_addresses_that_go_back_are_refused() {
    let (runs, _, _) = written(|writer| {
        writer.append(RemoteAddr(1), &bytes("a"), Zeros::Implied).unwrap_err();
        writer.append(START, &[1; 100], Zeros::Implied).unwrap_err();
        writer.append(START, &bytes("ab"), Zeros::Implied).unwrap();
        writer.append(RemoteAddr(17 * 4096), &bytes("a"), Zeros::Implied).unwrap_err();
        writer.append(RemoteAddr(u64::MAX - 4095), &bytes("aa"), Zeros::Implied).unwrap_err();
    });
    assert_eq!(shape(&runs), [(16, 18, 0)]);
}
