//! Builds the blob (`crates/tub-restorer`) and checks that it is what it must be: one flat range
//! of position-independent code without writable data, undefined symbols or panics.
//!
//! The blob is freestanding, so it cannot be an ordinary dependency: it has its own linker script
//! and flags, and is built by a cargo of its own into this crate's output directory.

use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, SectionFlags, elf};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// More than this, and somebody has put work into the blob that belongs into the plan.
const MAX_BYTES: usize = 4096;

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let blob = here.with_file_name("tub-restorer");
    let abi = here.with_file_name("tub-restorer-abi");
    for path in [blob.join("src"), blob.join("blob.ld"), blob.join("Cargo.toml"), abi.join("src")] {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    let target = env::var("TARGET").expect("set by cargo");
    let elf = build(&blob, &out.join("blob"), &target);
    let bytes = fs::read(&elf).expect("the blob was just built");
    let (code, entry) = flatten(&bytes);
    fs::write(out.join("blob.bin"), &code).expect("OUT_DIR is writable");
    fs::write(out.join("blob_entry.rs"), format!("{entry}")).expect("OUT_DIR is writable");
}

fn build(blob: &Path, target_dir: &Path, target: &str) -> PathBuf {
    let script = blob.join("blob.ld");
    let flags = [
        "-Crelocation-model=pic".to_owned(),
        "-Cforce-unwind-tables=no".to_owned(),
        "-Clink-arg=-nostartfiles".to_owned(),
        "-Clink-arg=-nostdlib".to_owned(),
        "-Clink-arg=-static".to_owned(),
        "-Clink-arg=-no-pie".to_owned(),
        format!("-Clink-arg=-Wl,-T,{},--emit-relocs,--build-id=none", script.display()),
    ];
    let mut cargo = Command::new(env::var_os("CARGO").expect("set by cargo"));
    cargo
        .args(["build", "--release", "--offline", "--quiet", "--target", target])
        .arg("--manifest-path")
        .arg(blob.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir)
        // What was meant for the crate that we are building, and not for the blob.
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_BUILD_TARGET")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the blob does not build");
    target_dir.join(target).join("release/tub-restorer")
}

/// The blob as the bytes that are copied into a process, and its entry's offset.
fn flatten(bytes: &[u8]) -> (Vec<u8>, u64) {
    let elf = object::File::parse(bytes).expect("the linker writes ELF");
    let mut code = Vec::new();
    for section in elf.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        if sh_flags & u64::from(elf::SHF_ALLOC) == 0 || section.size() == 0 {
            continue;
        }
        let name = section.name().expect("sections have names");
        assert_eq!(name, ".blob", "the blob has an unexpected section");
        assert_eq!(sh_flags & u64::from(elf::SHF_WRITE), 0, "the blob has writable data");
        assert_eq!(section.address(), 0, "the blob starts at 0");
        code = section.data().expect("the section is in the file").to_vec();
        for (offset, relocation) in section.relocations() {
            let RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
            assert!(is_relative(r_type), "absolute relocation {r_type} at {offset:#x}");
        }
    }
    for symbol in elf.symbols() {
        let name = symbol.name().unwrap_or_default();
        assert!(!name.contains("panicking"), "the blob can panic: {name}");
        assert!(name.is_empty() || !symbol.is_undefined(), "undefined symbol {name}");
    }
    assert!(!code.is_empty() && code.len() <= MAX_BYTES, "the blob has {} bytes", code.len());
    (code, elf.entry())
}

fn is_relative(r_type: u32) -> bool {
    match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86_64") => matches!(r_type, elf::R_X86_64_PC32 | elf::R_X86_64_PLT32),
        // On other architectures the blob refuses to run; that it compiles is all that is asked.
        _ => true,
    }
}
