//! Images of released versions stay readable, and FORMAT.md says what the code does.

use super::{Scratch, sample, write};
use crate::layout::{HEADER_BYTES, hash};
use crate::{HOT_FILE, INVENTORY_FILE, Image, PAGES_FILE, Replace};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tub_units::AddrRange;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/images/v1")
}

#[test]
fn the_image_of_version_1_is_still_understood() {
    // A checkout has the modes of the user's umask, so the files go where they can be safe.
    let scratch = Scratch::new();
    for name in [INVENTORY_FILE, PAGES_FILE, HOT_FILE] {
        std::fs::copy(fixture().join(name), scratch.path(name)).unwrap();
        std::fs::set_permissions(scratch.path(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
    std::fs::set_permissions(&scratch.0, PermissionsExt::from_mode(0o700)).unwrap();
    let image = Image::open(&scratch.0).unwrap();
    image.verify_pages().unwrap();
    assert_eq!(image.checkpoint, sample::checkpoint());
    assert_eq!(image.hot(), hot());
}

fn hot() -> Vec<AddrRange> {
    vec![sample::pages(4, 5), sample::pages(93, 94)]
}

#[test]
fn what_is_written_today_is_byte_for_byte_version_1() {
    let scratch = Scratch::new();
    let dir = scratch.path("image");
    write(&dir, Replace::Never, &sample::checkpoint()).unwrap();
    for name in [INVENTORY_FILE, PAGES_FILE] {
        let (kept, now) = (std::fs::read(fixture().join(name)), std::fs::read(dir.join(name)));
        assert!(kept.unwrap() == now.unwrap(), "{name} differs");
    }
}

#[test]
fn format_md_shows_the_header_of_the_fixture() {
    let inventory = std::fs::read(fixture().join(INVENTORY_FILE)).unwrap();
    let lines = inventory[..HEADER_BYTES].chunks(16).enumerate().map(|(index, bytes)| {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:02x}  {}", index * 16, digits.join(" "))
    });
    let expected = lines.collect::<Vec<_>>().join("\n");
    assert!(FORMAT.contains(&expected), "FORMAT.md should show:\n{expected}");
}

#[test]
fn format_md_names_the_checksum_of_the_files_that_define_it() {
    let files = [
        include_str!("../layout.rs"),
        include_str!("../v1/mod.rs"),
        include_str!("../v1/fd.rs"),
        include_str!("../v1/memory.rs"),
        include_str!("../v1/socket.rs"),
        include_str!("../v1/task.rs"),
    ];
    let expected = format!("layout {:016x}", hash(files.concat().as_bytes()));
    assert!(
        FORMAT.contains(&expected),
        "the files that define the format have changed: bring FORMAT.md up to date, then put \
         \"{expected}\" into it"
    );
}

const FORMAT: &str = include_str!("../../FORMAT.md");

/// Run once when a version is released, never again for that version:
/// `cargo test -p tub-image -- --ignored keep_an_image_of_this_version`.
#[test]
#[ignore = "writes the fixture that the other tests compare with"]
fn keep_an_image_of_this_version() {
    write(&fixture(), Replace::AnyImage, &sample::checkpoint()).unwrap();
    Image::open_foreign(&fixture()).unwrap().record_hot(&hot()).unwrap();
}
