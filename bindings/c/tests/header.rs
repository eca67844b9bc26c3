//! `tub.h` is what cbindgen writes of the sources, and a program in C can use it.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_header_is_up_to_date() {
    let config = cbindgen::Config::from_file(Path::new(HERE).join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in ["lib.rs", "outcome.rs", "report.rs"] {
        builder = builder.with_src(Path::new(HERE).join("src").join(file));
    }
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    let path = Path::new(HERE).join("include/tub.h");
    if std::env::var_os("TUB_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let text = String::from_utf8(text).unwrap();
    assert!(committed == text, "tub.h is not up to date: TUB_BLESS=1 cargo test -p tubthumping-c");
}

#[test]
fn the_header_compiles_by_itself_as_c_and_as_cxx() {
    for language in ["c", "c++"] {
        let mut compiler = Command::new("cc");
        compiler.args(["-x", language, "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]);
        let output = compiler.arg(Path::new(HERE).join("include/tub.h")).output();
        let output = match output {
            Ok(output) => output,
            Err(error) => {
                println!("skipped: no C compiler: {error}");
                return;
            }
        };
        let said = String::from_utf8_lossy(&output.stderr);
        let no_cxx =
            language == "c++" && (said.contains("cc1plus") || said.contains("not recognized"));
        if no_cxx {
            println!("skipped: no C++ compiler");
            continue;
        }
        assert!(output.status.success(), "{language}: {said}");
    }
}
