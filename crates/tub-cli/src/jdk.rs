//! `tub jdk`: a CRaC JDK made of a stock one.
//!
//! In: the home of a JDK. Out: a directory of links to it, with a `bin/java` and a `bin/jcmd` that
//! know CRaC's options and `JDK.checkpoint`.
//! Invariant: the stock JDK is not touched, and the directory holds nothing of it but links.
//! Not here: what the two do (`java`).

use crate::report::{Code, Failure};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Programs that are ours, and the command of `tub` behind each.
const LAUNCHERS: [(&str, &str); 2] = [("java", "launch-java"), ("jcmd", "launch-jcmd")];

/// Make a CRaC JDK of a stock one: a directory of links, with a `java` that takes -XX:CRaC… options
/// and a `jcmd` that takes JDK.checkpoint.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The stock JDK.
    java_home: PathBuf,
    /// The directory to make.
    dest: PathBuf,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let home = fs::canonicalize(&args.java_home).map_err(|error| {
        Failure::new(format!("{}: cannot be found", args.java_home.display()), &error, Code::Usage)
    })?;
    if !home.join("bin/java").is_file() {
        let what = format!("{}: is no JDK", home.display());
        let error = io::Error::other("it has no bin/java");
        return Err(Failure::new(what, &error, Code::Usage));
    }
    let ourselves = std::env::current_exe().map_err(|error| {
        Failure::new("cannot find the path of tub itself", &error, Code::Failed)
    })?;
    make(&home, &args.dest, &ourselves).map_err(|error| {
        let what = format!("{}: cannot be made", args.dest.display());
        Failure::new(what, &error, Code::CannotWrite).hint("name a directory that does not exist")
    })?;
    println!("{}: a CRaC JDK made of {}", args.dest.display(), home.display());
    Ok(ExitCode::SUCCESS)
}

fn make(home: &Path, dest: &Path, ourselves: &Path) -> io::Result<()> {
    let directory = |path: &Path| DirBuilder::new().mode(0o755).create(path);
    directory(dest)?;
    directory(&dest.join("bin"))?;
    link_all(home, dest, |name| name == "bin")?;
    let is_ours = |name: &str| LAUNCHERS.iter().any(|(launcher, _)| *launcher == name);
    link_all(&home.join("bin"), &dest.join("bin"), is_ours)?;
    for (name, command) in LAUNCHERS {
        let script = format!(
            "#!/bin/sh\n# Made by `tub jdk`.\nexec {} {command} {} -- \"$@\"\n",
            quoted(ourselves),
            quoted(home)
        );
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(dest.join("bin").join(name))?;
        file.write_all(script.as_bytes())?;
    }
    Ok(())
}

fn link_all(from: &Path, to: &Path, except: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(&except) {
            symlink(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
