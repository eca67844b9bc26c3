//! Images that are not our own engine's: CRIU's, and what is paused.
//!
//! In: a directory. Out: what is known of it without its engine; whether it would restore here.
//! Invariant: only looks.
//! Not here: what lies in CRIU's own files, which its own tools tell.

use crate::report::{Code, Failure, counted};
use crate::{criu, pause};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use tubthumping::{
    CriuOptions, EngineKind, Inspection, PauseEngine, RestoreError, engine, engine_of,
};

/// Whether `dir` holds an image of another engine than ours.
pub(crate) fn is_image(dir: &Path) -> bool {
    engine_of(dir) != EngineKind::Native
}

/// `tub inspect` of such an image.
pub(crate) fn inspect(dir: &Path, as_json: bool) -> Result<ExitCode, Failure> {
    let inspection = look(dir, "inspected")?;
    if as_json {
        println!("{}", describe_json(dir, &inspection));
    } else {
        print!("{}", describe(dir, &inspection));
    }
    Ok(ExitCode::SUCCESS)
}

/// `tub verify` of such an image: it is ours to trust, and there is a CRIU that works; or a process that
/// waits.
pub(crate) fn verify(dir: &Path, as_json: bool) -> Result<ExitCode, Failure> {
    let inspection = look(dir, "restored here")?;
    let what = || format!("image {} would not restore here", dir.display());
    let outcome = if inspection.engine == EngineKind::Pause {
        PauseEngine::verify(dir).map(|()| String::new()).map_err(|error| {
            let (code, hint) = pause::advice(&error);
            Failure::new(what(), &error, code).state(pause::state(&error)).hint(hint)
        })
    } else {
        engine(inspection.engine, &CriuOptions::default()).check().map_err(|error| {
            Failure::new(what(), &error, Code::HostLacks)
                .hint("install CRIU, or name it with TUB_CRIU; it wants root")
        })
    };
    if as_json {
        let reasons = outcome.as_ref().err().map_or(&[][..], |failure| &failure.causes);
        let image = dir.display().to_string();
        println!(
            "{}",
            json!({"image": image, "restorable": reasons.is_empty(), "reasons": reasons})
        );
    }
    let version = outcome?;
    if as_json {
        return Ok(ExitCode::SUCCESS);
    }
    let (dir, pid) = (dir.display(), inspection.pid);
    if inspection.engine == EngineKind::Pause {
        println!(
            "{dir}: process {pid} is paused, and would go on; there is no image (engine pause)"
        );
    } else {
        let taken = inspection.engine_version;
        println!("image {dir} was taken by CRIU {taken}; CRIU {version} works here");
        println!("what its files hold, CRIU looks at when it restores them");
    }
    Ok(ExitCode::SUCCESS)
}

/// What such an image is called, if it can be restored as far as that is known without trying.
pub(crate) fn labels(dir: &Path) -> Result<Vec<(String, String)>, RestoreError> {
    if engine_of(dir) == EngineKind::Pause {
        PauseEngine::verify(dir)?;
    }
    Ok(engine(engine_of(dir), &CriuOptions::default()).inspect(dir)?.labels)
}

fn look(dir: &Path, verb: &str) -> Result<Inspection, Failure> {
    let engine = engine(engine_of(dir), &CriuOptions::default());
    engine.inspect(dir).map_err(|error| {
        let what = format!("image {} cannot be {verb}", dir.display());
        let hint = match &error {
            RestoreError::Criu(error) => criu::advice(error).1,
            RestoreError::Pause(error) => pause::advice(error).1,
            _ => "",
        };
        Failure::new(what, &error, Code::BadImage).hint(hint)
    })
}

fn describe(dir: &Path, inspection: &Inspection) -> String {
    let Inspection { engine, engine_version, generation, pid, threads, .. } = inspection;
    let runtime = inspection.runtime.as_deref().unwrap_or("none: the application was not told");
    let resources = inspection.resources.join(", ");
    let state = match paused(dir, inspection) {
        None => String::new(),
        Some(state) => format!("state         {state}\n"),
    };
    let threads = counted(*threads, "thread", "threads");
    let label = |(name, value): &(String, String)| {
        let (name, value) = (crate::inspect::safe(name), crate::inspect::safe(value));
        format!("label         {name}={value}\n")
    };
    let labels: String = inspection.labels.iter().map(label).collect();
    format!(
        "image         {}\n\
         engine        {engine} {engine_version}, generation {generation}\n\
         taken         {}\n\
         process       {pid}, {threads}\n\
         {state}\
         runtime       {}\n\
         resources     {}\n\
         {labels}",
        dir.display(),
        crate::inspect::utc(inspection.created_unix_ns / 1_000_000_000),
        crate::inspect::safe(runtime),
        crate::inspect::safe(&resources),
    )
}

/// Of a pause: whether it is over.
fn paused(dir: &Path, inspection: &Inspection) -> Option<String> {
    if inspection.engine != EngineKind::Pause {
        return None;
    }
    Some(match PauseEngine::verify(dir) {
        Ok(()) => "paused: `tub restore` has it go on; there is no image".to_owned(),
        Err(error) => tubthumping::sentence(&error),
    })
}

fn describe_json(dir: &Path, inspection: &Inspection) -> serde_json::Value {
    json!({
        "image": dir.display().to_string(),
        "engine": inspection.engine.to_string(),
        "engine_version": inspection.engine_version,
        "created_unix_ns": inspection.created_unix_ns,
        "generation": inspection.generation,
        "labels": inspection.labels,
        "pid": inspection.pid,
        "threads": inspection.threads,
        "state": paused(dir, inspection),
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
