//! The services that the demo knocks down.
//!
//! In: tools and a place to work in. Out: command lines and the answer that proves they work.
//! Invariant: no service contains a line written for Tubthumping.
//! Not here: running them.

use crate::examples::{Example, sha256};
use crate::failure::Result;
use crate::layout::Layout;
use crate::setup::Jdk;
use std::ffi::OsString;
use std::path::Path;

/// A service that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// For people and for `--json`.
    pub(crate) name: String,
    /// The JDK that runs it, if any.
    pub(crate) jdk: Option<Jdk>,
    /// Its command line, without us.
    pub(crate) command: Vec<OsString>,
    /// Options of `tub run`, if it is started with that and so takes part in its checkpoint.
    pub(crate) run: Option<Vec<OsString>>,
    /// The body of a correct answer.
    pub(crate) expect: String,
    /// SHA-256 of what is the application.
    pub(crate) sha256: String,
}

/// A service of `examples/services.toml`, built with Maven.
pub(crate) fn example(example: &Example, jdk: &Jdk, scratch: &Path) -> Result<Service> {
    example.build()?;
    let installed = example.install(scratch)?;
    Ok(Service {
        name: example.title()?,
        jdk: Some(jdk.clone()),
        command: example.command(jdk, &installed),
        run: Some(example.run_options()),
        expect: example.answer.clone(),
        sha256: installed.sha256()?,
    })
}

/// The native service of `examples/native-service`.
pub(crate) fn native(layout: &Layout) -> Result<Service> {
    let program = layout.native_service();
    Ok(Service {
        name: "native-service (multi-threaded Rust, std only)".to_owned(),
        jdk: None,
        sha256: sha256(&program)?,
        command: vec![program.into()],
        run: None,
        expect: "Greetings from 5761455 primes!".to_owned(),
    })
}
