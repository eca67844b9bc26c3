//! Words about CRIU: its options, its images, and what to do about its failures.

use crate::report::{Code, Failure};
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tubthumping::{
    CriuEngine, CriuError, CriuOptions, Engine, EngineKind, Inspection, RestoreError,
};

/// Options for CRIU, which the native engine does not look at.
#[derive(clap::Args)]
#[command(next_help_heading = "CRIU")]
pub(crate) struct CriuArgs {
    /// The program, rather than that of TUB_CRIU or PATH.
    #[arg(long, value_name = "FILE")]
    criu: Option<PathBuf>,
    /// One more word for its command line: --criu-option=--tcp-close. May be repeated.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    criu_option: Vec<OsString>,
}

impl CriuArgs {
    pub(crate) fn options(&self) -> CriuOptions {
        CriuOptions { program: self.criu.clone(), words: self.criu_option.clone() }
    }
}

pub(crate) fn advice(error: &CriuError) -> (Code, &'static str) {
    match error {
        CriuError::NotFound | CriuError::CannotRun { .. } | CriuError::NotCriu { .. } => {
            (Code::HostLacks, "install CRIU, or name it with --criu or TUB_CRIU")
        }
        CriuError::Unusable { .. } | CriuError::House(_) => {
            (Code::HostLacks, "CRIU wants root; `tub check` tells what else this host allows")
        }
        CriuError::Exists { .. } => {
            (Code::CannotWrite, "choose another --image, or --replace to replace an image")
        }
        CriuError::ForeignSession { .. } => (
            Code::Refused,
            "start the service in a session of its own (setsid(1)), or use --engine native",
        ),
        CriuError::Io { .. } => (Code::CannotWrite, ""),
        CriuError::Marker { .. } => (Code::BadImage, "take a new checkpoint"),
        _ => (Code::Failed, "what CRIU says is explained in its manual and on its web pages"),
    }
}

/// Whether `dir` holds an image of CRIU's.
pub(crate) fn is_image(dir: &Path) -> bool {
    tubthumping::engine_of(dir) == EngineKind::Criu
}

/// `tub inspect` of such an image: what lies in CRIU's own files, its own tools tell.
pub(crate) fn inspect(dir: &Path, as_json: bool) -> Result<ExitCode, Failure> {
    let inspection = look(dir, "inspected")?;
    if as_json {
        println!("{}", describe_json(dir, &inspection));
    } else {
        print!("{}", describe(dir, &inspection));
    }
    Ok(ExitCode::SUCCESS)
}

/// `tub verify` of such an image: it is ours to trust, and there is a CRIU that works.
pub(crate) fn verify(dir: &Path, as_json: bool) -> Result<ExitCode, Failure> {
    let inspection = look(dir, "restored here")?;
    let engine = CriuEngine::new(CriuOptions::default()).check();
    if as_json {
        let reasons: Vec<String> =
            engine.as_ref().err().map(ToString::to_string).into_iter().collect();
        let restorable = reasons.is_empty();
        let image = dir.display().to_string();
        println!("{}", json!({"image": image, "restorable": restorable, "reasons": reasons}));
    }
    let version = engine.map_err(|error| {
        let what = format!("image {} would not restore here", dir.display());
        Failure::new(what, &error, Code::HostLacks)
            .hint("install CRIU, or name it with TUB_CRIU; it wants root")
    })?;
    if !as_json {
        let taken = inspection.engine_version;
        println!("image {} was taken by CRIU {taken}; CRIU {version} works here", dir.display());
        println!("what its files hold, CRIU looks at when it restores them");
    }
    Ok(ExitCode::SUCCESS)
}

fn look(dir: &Path, verb: &str) -> Result<Inspection, Failure> {
    let engine = CriuEngine::new(CriuOptions::default());
    engine.inspect(dir).map_err(|error| {
        let what = format!("image {} cannot be {verb}", dir.display());
        let hint = match &error {
            RestoreError::Criu(error) => advice(error).1,
            _ => "",
        };
        Failure::new(what, &error, Code::BadImage).hint(hint)
    })
}

fn describe(dir: &Path, inspection: &Inspection) -> String {
    let Inspection { engine, engine_version, generation, pid, threads, .. } = inspection;
    let runtime = inspection.runtime.as_deref().unwrap_or("none: the application was not told");
    let resources = inspection.resources.join(", ");
    format!(
        "image         {}\n\
         engine        {engine} {engine_version}, generation {generation}\n\
         taken         {}\n\
         process       {pid}, {threads} threads\n\
         runtime       {}\n\
         resources     {}\n",
        dir.display(),
        crate::inspect::utc(inspection.created_unix_ns / 1_000_000_000),
        crate::inspect::safe(runtime),
        crate::inspect::safe(&resources),
    )
}

fn describe_json(dir: &Path, inspection: &Inspection) -> serde_json::Value {
    json!({
        "image": dir.display().to_string(),
        "engine": inspection.engine.to_string(),
        "engine_version": inspection.engine_version,
        "created_unix_ns": inspection.created_unix_ns,
        "generation": inspection.generation,
        "pid": inspection.pid,
        "threads": inspection.threads,
        "coordination": inspection.runtime.as_ref().map(|runtime| json!({
            "runtime": runtime,
            "resources": inspection.resources,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_criu_is_described() {
        let inspection = Inspection {
            engine: EngineKind::Criu,
            engine_version: "4.2.1".into(),
            created_unix_ns: 951_782_399_000_000_000,
            generation: 2,
            labels: Vec::new(),
            pid: 42,
            threads: 3,
            runtime: Some("OpenJDK\u{1b}".into()),
            resources: vec!["pool".into(), "log".into()],
        };
        let page = describe(Path::new("/i"), &inspection);
        for expected in [
            "engine        criu 4.2.1, generation 2\n",
            "taken         2000-02-28 23:59:59 UTC\n",
            "runtime       OpenJDK\\u{1b}\n",
            "resources     pool, log\n",
        ] {
            assert!(page.contains(expected), "{expected:?} is not in:\n{page}");
        }
        assert_eq!(describe_json(Path::new("/i"), &inspection)["engine"], "criu");
    }
}
