//! `tub verify`: is an image whole, and would it restore here.
//!
//! In: a directory. Out: every reason why not, at once; and what may have passed by then (ports that
//! are taken now), as warnings.
//! Invariant: nothing is started, and the image is only read.

mod addresses;

use crate::foreign;
use crate::inspect::bad_image;
use crate::report::{Code, Failure};
use crate::restore::{PlaceArgs, advice};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use tub_image::Image;
use tubthumping::{RestoreError, RestoreOptions, Stats};

/// Tell whether an image is whole and would restore here: every reason why not, at once.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image.
    dir: PathBuf,
    #[command(flatten)]
    place: PlaceArgs,
    /// Print the outcome as one JSON object, too.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    if foreign::is_image(&args.dir) {
        return foreign::verify(&args.dir, args.json);
    }
    let what = format!("image {} would not restore here", args.dir.display());
    let outcome = match Image::open(&args.dir) {
        Err(error) => Err(bad_image(what, &error)),
        Ok(image) => {
            let reasons = reasons(&image, &args.place);
            if reasons.is_empty() { Ok(image) } else { Err(failure(what, &reasons)) }
        }
    };
    if args.json {
        let causes = outcome.as_ref().err().map_or(&[][..], |failure| &failure.causes);
        let object = json!({
            "image": args.dir.display().to_string(),
            "restorable": outcome.is_ok(),
            "reasons": causes,
            "warnings": outcome.as_ref().map_or_else(|_| Vec::new(), addresses::taken),
        });
        println!("{object}");
    }
    let image = outcome?;
    if !args.json {
        for warning in addresses::taken(&image) {
            eprintln!("tub: warning: {warning}");
        }
        let pages = crate::inspect::size(image.pages_bytes);
        println!("image {} is whole ({pages} of pages checked)", args.dir.display());
        println!("and would restore here");
    }
    Ok(ExitCode::SUCCESS)
}

/// A reason, and whether it lies with the image or with this host.
struct Reason {
    text: String,
    code: Code,
    hint: &'static str,
}

const HOST_HINT: &str = "`tub check` tells what this host allows";

/// Everything that stands in the way, what is the image's own fault first.
fn reasons(image: &Image, place: &PlaceArgs) -> Vec<Reason> {
    let mut found = Vec::new();
    let mut add = |code, text: String| found.push(Reason { text, code, hint: HOST_HINT });
    if let Err(error) = image.verify_pages() {
        add(Code::BadImage, tubthumping::sentence(&error));
    }
    match tub_host::facts() {
        Err(error) => add(Code::HostLacks, tubthumping::sentence(&error)),
        Ok(here) => {
            for mismatch in tub_host::compare(&image.checkpoint.host, &here) {
                add(Code::BadImage, mismatch.to_string());
            }
        }
    }
    for mismatch in tub_host::check_files(&image.checkpoint) {
        add(Code::BadImage, mismatch.to_string());
    }
    for conflict in tub_host::check_locks(&image.checkpoint) {
        add(Code::HostLacks, conflict.to_string());
    }
    // What the host allows is asked last, for asking changes this process: it may find itself in a
    // namespace of its own.
    if let Err(error) = dry_run(&place.options(&image.dir)) {
        let (text, code) = (tubthumping::sentence(&error), Code::HostLacks);
        found.push(Reason { text, code, hint: advice(&error).1 });
    }
    found
}

/// Plans a restore. What is compared above is not reported again.
fn dry_run(options: &RestoreOptions) -> Result<(), RestoreError> {
    match tubthumping::dry_run(options, &mut Stats::start()) {
        Ok(_) | Err(RestoreError::Host(_) | RestoreError::Image(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn failure(what: String, reasons: &[Reason]) -> Failure {
    let is_image = reasons.iter().any(|reason| reason.code == Code::BadImage);
    let code = if is_image { Code::BadImage } else { Code::HostLacks };
    let hint = if is_image {
        "restore on a host like the first one, with the same files; or take a new checkpoint"
    } else {
        reasons.last().map_or(HOST_HINT, |reason| reason.hint)
    };
    Failure {
        what,
        causes: reasons.iter().map(|reason| reason.text.clone()).collect(),
        state: String::new(),
        hint: hint.into(),
        code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::fixture;
    use std::path::Path;

    fn args(dir: &Path, json: bool) -> Args {
        use clap::Parser;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let json = json.then_some("--json");
        Line::parse_from(["verify", dir.to_str().unwrap()].into_iter().chain(json)).args
    }

    #[test]
    fn an_image_of_nowhere_fails_for_every_reason_at_once() {
        let copy = fixture::Copy::new("verify");
        let pages = copy.0.join(tub_image::PAGES_FILE);
        let mut bytes = std::fs::read(&pages).unwrap();
        bytes[0] ^= 1;
        std::fs::write(&pages, bytes).unwrap();
        let failure = main(&args(&copy.0, false)).unwrap_err();
        assert_eq!(failure.code, Code::BadImage);
        // What this processor lacks of the image's is no matter for a test that runs on any.
        for expected in ["altered", "/app/app.jar", "/data/log", "/srv/app"] {
            let found = failure.causes.iter().any(|cause| cause.contains(expected));
            assert!(found, "{expected} is not among {:#?}", failure.causes);
        }
    }

    #[test]
    fn a_truncated_image_is_bad() {
        let copy = fixture::Copy::new("verify-cut");
        let inventory = copy.0.join(tub_image::INVENTORY_FILE);
        let bytes = std::fs::read(&inventory).unwrap();
        std::fs::write(&inventory, &bytes[..100]).unwrap();
        let failure = main(&args(&copy.0, true)).unwrap_err();
        assert_eq!(failure.code, Code::BadImage);
        assert!(failure.causes[0].contains("truncated: 100 of"), "{failure:?}");
        assert!(failure.hint.contains("damaged"), "{failure:?}");
    }
}
