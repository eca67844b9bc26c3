//! Every way an image can be damaged or forged ends in an error that says which.

use super::{Scratch, sample, write};
use crate::layout::{HEADER_BYTES, Header, OPTIONAL, Version, hash, put_frame, take_frame};
use crate::{ErrorKind, INVENTORY_FILE, Image, PAGES_FILE, Replace};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An image, and the bytes of its inventory.
struct Victim {
    _scratch: Scratch,
    dir: PathBuf,
    inventory: Vec<u8>,
}

impl Victim {
    fn new() -> Self {
        let scratch = Scratch::new();
        let dir = scratch.path("image");
        write(&dir, Replace::Never, &sample::checkpoint()).unwrap();
        let inventory = std::fs::read(dir.join(INVENTORY_FILE)).unwrap();
        Self { _scratch: scratch, dir, inventory }
    }

    /// What opening says once the inventory holds `bytes`.
    fn open_with(&self, bytes: &[u8]) -> Result<Image, ErrorKind> {
        std::fs::write(self.dir.join(INVENTORY_FILE), bytes).unwrap();
        Image::open(&self.dir).map_err(|error| error.kind().clone())
    }

    fn header(&self) -> Header {
        Header::decode(&self.inventory[..HEADER_BYTES].try_into().unwrap())
    }

    fn body(&self) -> &[u8] {
        &self.inventory[HEADER_BYTES..]
    }

    /// The inventory with that body, and checksums to match: what a forger would write.
    fn sealed(&self, body: &[u8]) -> Vec<u8> {
        let header =
            Header { body_bytes: body.len() as u64, body_hash: hash(body), ..self.header() };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(body);
        bytes
    }

    fn with_header(&self, header: Header) -> Vec<u8> {
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(self.body());
        bytes
    }
}

#[test]
fn an_inventory_cut_anywhere_is_truncated() {
    let victim = Victim::new();
    // Every border of a record, and every length of the header.
    let mut cuts: Vec<usize> = (0..=HEADER_BYTES).collect();
    let mut rest = victim.body();
    while let Some((_, after)) = take_frame(rest) {
        rest = after;
        cuts.extend([victim.inventory.len() - rest.len(), victim.inventory.len() - rest.len() - 1]);
    }
    assert!(cuts.len() > HEADER_BYTES + 20);
    for cut in cuts.into_iter().filter(|cut| *cut < victim.inventory.len()) {
        let kind = victim.open_with(&victim.inventory[..cut]).unwrap_err();
        assert!(matches!(kind, ErrorKind::Truncated { .. }), "{cut}: {kind:?}");
    }
    let longer = [&victim.inventory[..], b"x"].concat();
    assert!(matches!(victim.open_with(&longer), Err(ErrorKind::Malformed { .. })));
    victim.open_with(&victim.inventory).unwrap();
}

#[test]
fn any_flipped_bit_of_the_inventory_is_noticed() {
    let victim = Victim::new();
    for at in 0..victim.inventory.len() {
        let mut bytes = victim.inventory.clone();
        bytes[at] ^= 1 << (at % 8);
        let kind = victim.open_with(&bytes).unwrap_err();
        let expected = match at {
            0..8 => matches!(kind, ErrorKind::NotAnImage { .. }),
            8..10 => matches!(kind, ErrorKind::UnknownVersion { .. }),
            10..64 => kind == ErrorKind::Altered { part: "header" },
            _ => kind == ErrorKind::Altered { part: "list of records" },
        };
        assert!(expected, "byte {at}: {kind:?}");
    }
}

#[test]
fn forged_bytes_under_a_matching_checksum_never_panic() {
    let victim = Victim::new();
    let mut refused = 0;
    for at in 0..victim.body().len() {
        let mut body = victim.body().to_vec();
        body[at] ^= [0x01, 0x80, 0xff][at % 3];
        match victim.open_with(&victim.sealed(&body)) {
            Ok(_) => {}
            Err(ErrorKind::Malformed { .. } | ErrorKind::UnknownRecord { .. }) => refused += 1,
            Err(kind) => panic!("byte {at}: {kind:?}"),
        }
    }
    assert!(refused > 100);
}

#[test]
fn another_version_architecture_or_page_size_is_named() {
    let victim = Victim::new();
    let version = Version { major: 2, minor: 1 };
    let kind = victim.open_with(&victim.with_header(Header { version, ..victim.header() }));
    let understood = Version { major: 1, minor: 0 };
    assert_eq!(kind.unwrap_err(), ErrorKind::UnknownVersion { found: version, understood });

    // A higher minor version only promises more optional records.
    let version = Version { major: 1, minor: 9 };
    victim.open_with(&victim.with_header(Header { version, ..victim.header() })).unwrap();

    let kind = victim.open_with(&victim.with_header(Header { machine: 183, ..victim.header() }));
    assert!(matches!(kind.unwrap_err(), ErrorKind::OtherArchitecture { found: 183, .. }));
    let header = Header { page_bytes: 16384, ..victim.header() };
    let kind = victim.open_with(&victim.with_header(header));
    assert!(matches!(kind.unwrap_err(), ErrorKind::OtherPageSize { found_bytes: 16384, .. }));
    let kind = victim.open_with(&victim.with_header(Header { flags: 4, ..victim.header() }));
    assert_eq!(kind.unwrap_err(), ErrorKind::UnknownFlags { flags: 4 });
}

#[test]
fn what_a_newer_release_wrote_is_called_so() {
    let found = Version { major: 2, minor: 1 };
    let understood = Version { major: 1, minor: 0 };
    let texts = [
        ErrorKind::UnknownVersion { found, understood },
        ErrorKind::UnknownRecord { kind: 99, version: 1 },
        ErrorKind::UnknownRecord { kind: 5, version: 2 },
        ErrorKind::UnknownFlags { flags: 0x41 },
    ]
    .map(|kind| kind.to_string());
    let expected = [
        "format version 2.1 is not understood; this release reads 1.0 to 1.0",
        "record of kind 99 and version 1 is not understood; a newer release wrote it",
        "record of kind 5 and version 2 is not understood; a newer release wrote it",
        "image is written in a way that this release does not read: compressed pages, flags 0x41; \
         a newer release wrote it",
    ];
    assert_eq!(texts, expected);
}

#[test]
fn huge_lengths_and_counts_are_refused_before_anything_is_allocated() {
    let victim = Victim::new();
    let header = Header { body_bytes: u64::MAX - 63, ..victim.header() };
    let kind = victim.open_with(&victim.with_header(header)).unwrap_err();
    assert!(matches!(kind, ErrorKind::Malformed { .. }), "{kind:?}");

    // A sequence that claims 2^63 elements, as the payload of each record that starts with one.
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    for record in [7, 8, 9, 10, 11, 12] {
        let mut body = Vec::new();
        let mut rest = victim.body();
        while let Some((frame, after)) = take_frame(rest) {
            let payload = if frame.kind == record { &huge } else { frame.payload };
            put_frame(&mut body, frame.kind, frame.version, payload);
            rest = after;
        }
        let kind = victim.open_with(&victim.sealed(&body)).unwrap_err();
        assert!(matches!(kind, ErrorKind::Malformed { .. }), "{record}: {kind:?}");
    }
}

#[test]
fn unknown_records_are_refused_or_listed() {
    let victim = Victim::new();
    let with = |kind, version| {
        let mut body = victim.body().to_vec();
        put_frame(&mut body, kind, version, b"from the future");
        victim.open_with(&victim.sealed(&body))
    };
    assert_eq!(with(99, 1).unwrap_err(), ErrorKind::UnknownRecord { kind: 99, version: 1 });
    assert_eq!(with(10, 2).unwrap_err(), ErrorKind::UnknownRecord { kind: 10, version: 2 });
    assert_eq!(with(99 | OPTIONAL, 7).unwrap().unread, [(99 | OPTIONAL, 7)]);
}

#[test]
fn missing_doubled_and_misplaced_records_are_refused() {
    let victim = Victim::new();
    let mut frames = Vec::new();
    let mut rest = victim.body();
    while let Some((frame, after)) = take_frame(rest) {
        frames.push(frame);
        rest = after;
    }
    for left_out in 0..frames.len() {
        let mut body = Vec::new();
        let (before, after) = (&frames[..left_out], &frames[left_out + 1..]);
        for frame in before.iter().chain(after) {
            put_frame(&mut body, frame.kind, frame.version, frame.payload);
        }
        let outcome = victim.open_with(&victim.sealed(&body));
        // Coordination is the one record that may be absent.
        assert_eq!(outcome.is_ok(), frames[left_out].kind == 4, "record {left_out}");
    }
    for frame in &frames {
        let mut body = victim.body().to_vec();
        put_frame(&mut body, frame.kind, frame.version, frame.payload);
        let kind = victim.open_with(&victim.sealed(&body)).unwrap_err();
        assert!(matches!(kind, ErrorKind::Malformed { .. }), "{}: {kind:?}", frame.kind);

        // The same record with a byte too many.
        let mut body = Vec::new();
        let longer = [frame.payload, b"\0"].concat();
        for other in &frames {
            let payload = if other.kind == frame.kind { &longer } else { other.payload };
            put_frame(&mut body, other.kind, other.version, payload);
        }
        let kind = victim.open_with(&victim.sealed(&body)).unwrap_err();
        assert!(matches!(kind, ErrorKind::Malformed { .. }), "{}: {kind:?}", frame.kind);
    }
}

#[test]
fn a_page_file_of_another_length_or_content_is_noticed() {
    let victim = Victim::new();
    let path = victim.dir.join(PAGES_FILE);
    let pages = std::fs::read(&path).unwrap();
    let open = || Image::open(&victim.dir).map_err(|error| error.kind().clone());

    std::fs::write(&path, &pages[..pages.len() - 4096]).unwrap();
    assert!(matches!(open().unwrap_err(), ErrorKind::Truncated { .. }));
    std::fs::write(&path, [&pages[..], b"x"].concat()).unwrap();
    assert!(matches!(open().unwrap_err(), ErrorKind::Malformed { .. }));

    let mut altered = pages.clone();
    altered[4096] ^= 1;
    *altered.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &altered).unwrap();
    let image = open().unwrap();
    let error = image.verify_pages().unwrap_err();
    let ErrorKind::PagesAltered { ranges } = error.kind() else { panic!("{error}") };
    let last = image.runs.iter().flatten().max_by_key(|run| run.offset_bytes).unwrap();
    assert_eq!(*ranges, [image.runs[0][0].range, last.range]);

    std::fs::remove_file(&path).unwrap();
    assert!(matches!(open().unwrap_err(), ErrorKind::NotAnImage { .. }));
}

#[test]
fn what_is_no_image_is_called_so() {
    let scratch = Scratch::new();
    let open = |path: &Path| Image::open(path).map_err(|error| error.kind().clone()).unwrap_err();
    assert_eq!(open(&scratch.path("nothing")), ErrorKind::NotFound);
    std::fs::write(scratch.path("file"), b"").unwrap();
    assert!(matches!(open(&scratch.path("file")), ErrorKind::NotAnImage { .. }));
    std::fs::create_dir(scratch.path("empty")).unwrap();
    assert!(matches!(open(&scratch.path("empty")), ErrorKind::NotAnImage { .. }));
    let text = [b'x'; 100];
    std::fs::write(scratch.path("empty").join(INVENTORY_FILE), text).unwrap();
    assert!(matches!(open(&scratch.path("empty")), ErrorKind::NotAnImage { .. }));
}

#[test]
fn links_and_pipes_in_the_directory_are_not_followed() {
    let victim = Victim::new();
    for name in [INVENTORY_FILE, PAGES_FILE] {
        let path = victim.dir.join(name);
        let elsewhere = victim.dir.join("elsewhere");
        std::fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        let error = Image::open(&victim.dir).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        std::fs::remove_file(&path).unwrap();
        // Must not hang for want of a writer either.
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = Image::open(&victim.dir).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(&elsewhere, &path).unwrap();
    }
    Image::open(&victim.dir).unwrap();
}

#[test]
fn an_image_that_others_may_write_to_is_not_ours() {
    let victim = Victim::new();
    let files = [victim.dir.clone(), victim.dir.join(INVENTORY_FILE), victim.dir.join(PAGES_FILE)];
    for path in files {
        let safe = std::fs::metadata(&path).unwrap().permissions();
        for mode in [0o720, 0o702] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = Image::open(&victim.dir).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::NotOurs { .. }), "{error}");
            Image::open_foreign(&victim.dir).unwrap();
        }
        std::fs::set_permissions(&path, safe).unwrap();
    }
    Image::open(&victim.dir).unwrap();
}

#[test]
fn an_image_of_another_user_is_not_ours() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can give files away");
        return;
    }
    let victim = Victim::new();
    std::os::unix::fs::chown(victim.dir.join(PAGES_FILE), Some(65534), None).unwrap();
    let error = Image::open(&victim.dir).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotOurs { uid: 65534, .. }), "{error}");
}
