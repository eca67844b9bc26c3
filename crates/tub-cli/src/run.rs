//! `tub run`: starts a command ready for a coordinated checkpoint.
//!
//! In: a command line. Out: the same process, running it: the agent is in its way, and its
//! environment says where the image goes.
//! Invariant: the command gets its arguments, standard streams and process id as without us.
//! Not here: anything after exec.

use crate::report::{Code, Failure};
use clap::ValueEnum;
use nix::unistd::{AccessFlags, access};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitCode};

/// File name of the agent for the JVM.
const AGENT: &str = "libtub_java_agent.so";

/// Start a command ready for a coordinated checkpoint.
///
/// The command takes over this process, so that its process id and exit status are the ones seen
/// outside. Descriptors above 2 that it would inherit are closed, but for those that a service
/// manager passes on (`LISTEN_FDS`): the command has not opened them and nobody could restore them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the image goes when the application itself asks for a checkpoint.
    #[arg(long, value_name = "DIR")]
    image: Option<PathBuf>,

    /// Rules for descriptors that the application leaves open.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// What becomes of files and sockets that the application leaves open at a checkpoint.
    #[arg(long, value_enum, default_value_t = Open::Refuse)]
    open: Open,

    /// Inherited descriptors that stay open: numbers, and paths that they lead to, parted by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    keep_fds: Vec<OsString>,

    /// The command and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Open {
    /// Name them and refuse the checkpoint.
    Refuse,
    /// Bring them back where that is possible.
    Restore,
}

/// Runs the command; returns only if that fails.
///
/// # Errors
/// A [`Failure`] that says what is missing. Nothing has been started then.
pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let program = &args.command[0];
    let found = find_program(program, env::var_os("PATH").as_deref())
        .map_err(|problem| cannot_run(program, problem))?;
    let mut variables = vec![("TUB_OPEN", OsString::from(args.open.name()))];
    if let Some(image) = &args.image {
        variables.push(("TUB_IMAGE", image_path(image)?.into_os_string()));
    }
    if let Some(policy) = &args.policy {
        variables.push(("TUB_POLICY", policy_path(policy)?.into_os_string()));
    }
    let ourselves = env::current_exe().map_err(|error| {
        Failure::new("cannot find the path of tub itself", &error, Code::Failed)
    })?;
    let agent =
        find_agent(&ourselves, env::var_os("TUB_AGENT").map(PathBuf::from), is_java(program))?;
    variables.push(("TUB_COMMAND", ourselves.into_os_string()));

    let launch = Launch::new(&args.command, agent.as_deref(), env::var_os("JAVA_TOOL_OPTIONS"));
    variables.extend(launch.tool_options.map(|options| ("JAVA_TOOL_OPTIONS", options)));
    let kept = close_inherited(&args.keep_fds);
    if !kept.is_empty() {
        let kept: Vec<String> = kept.iter().map(i32::to_string).collect();
        variables.push(("TUB_KEPT_FDS", kept.join(",").into()));
    }
    let mut command = Command::new(&found);
    command.arg0(program).args(&launch.arguments).envs(variables);
    let error = command.exec();
    Err(Failure::new(format!("{}: cannot run", found.display()), &error, Code::Failed))
}

impl Open {
    fn name(self) -> &'static str {
        match self {
            Open::Refuse => "refuse",
            Open::Restore => "restore",
        }
    }
}

/// How the command is started, apart from where its program lies.
#[derive(Debug, PartialEq, Eq)]
struct Launch {
    arguments: Vec<OsString>,
    /// `JAVA_TOOL_OPTIONS`, where it is to be set.
    tool_options: Option<OsString>,
}

impl Launch {
    /// For the JVM's own launcher, the agent goes on the command line, where it leaves no trace
    /// on stderr. Anything else may start a JVM sooner or later, and tells it by the environment.
    fn new(command: &[OsString], agent: Option<&Path>, tool_options: Option<OsString>) -> Self {
        let (program, arguments) = command.split_first().expect("clap asks for a command");
        let Some(agent) = agent else {
            return Self { arguments: arguments.to_vec(), tool_options: None };
        };
        let mut option = OsString::from("-agentpath:");
        option.push(agent);
        if is_java(program) {
            let arguments = std::iter::once(option).chain(arguments.iter().cloned()).collect();
            return Self { arguments, tool_options: None };
        }
        // JVM(since 9): options in the variable are parted by blanks, unless within quotes.
        let mut options = tool_options.unwrap_or_default();
        if !options.is_empty() {
            options.push(" ");
        }
        let quote = if option.as_encoded_bytes().contains(&b' ') { "\"" } else { "" };
        options.push(quote);
        options.push(option);
        options.push(quote);
        Self { arguments: arguments.to_vec(), tool_options: Some(options) }
    }
}

fn is_java(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new("java"))
}

/// Finds a program as a shell does; says why not otherwise.
fn find_program(program: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, &'static str> {
    let direct = Path::new(program);
    if program.as_encoded_bytes().contains(&b'/') {
        return match fs::metadata(direct) {
            Err(_) => Err("there is no such file"),
            Ok(found) if found.is_dir() => Err("it is a directory"),
            Ok(_) if access(direct, AccessFlags::X_OK).is_err() => Err("it may not be executed"),
            Ok(_) => Ok(direct.to_owned()),
        };
    }
    env::split_paths(path.unwrap_or(OsStr::new("/usr/bin:/bin")))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file() && access(file, AccessFlags::X_OK).is_ok())
        .ok_or("it is in no directory of PATH")
}

fn cannot_run(program: &OsStr, problem: &str) -> Failure {
    Failure {
        what: format!("{}: cannot run", Path::new(program).display()),
        causes: vec![problem.into()],
        state: String::new(),
        hint: String::new(),
        code: Code::Failed,
    }
}

/// The absolute path of the image to be, whose parent must be writable by then.
fn image_path(image: &Path) -> Result<PathBuf, Failure> {
    let what = || format!("{}: no image can be written there", image.display());
    let absolute =
        std::path::absolute(image).map_err(|e| Failure::new(what(), &e, Code::CannotWrite))?;
    let parent = absolute.parent().unwrap_or(Path::new("/"));
    if !parent.is_dir() {
        let error = io::Error::other(format!("{}: there is no such directory", parent.display()));
        return Err(Failure::new(what(), &error, Code::CannotWrite)
            .hint(format!("make it first: mkdir -p {}", parent.display())));
    }
    access(parent, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|errno| {
        let error = io::Error::other(format!("{}: cannot write to it: {errno}", parent.display()));
        Failure::new(what(), &error, Code::CannotWrite)
    })?;
    Ok(absolute)
}

fn policy_path(policy: &Path) -> Result<PathBuf, Failure> {
    fs::canonicalize(policy).map_err(|error| {
        Failure::new(format!("{}: cannot read the policy", policy.display()), &error, Code::Usage)
    })
}

/// The agent named, or the one installed beside us; `None` where there is none and the command
/// may do without.
fn find_agent(
    ourselves: &Path,
    named: Option<PathBuf>,
    is_needed: bool,
) -> Result<Option<PathBuf>, Failure> {
    let missing = |causes: Vec<String>| Failure {
        what: "cannot find the agent for the JVM".into(),
        causes,
        state: String::new(),
        hint: format!("install {AGENT} in ../lib beside tub, or name it by TUB_AGENT"),
        code: Code::HostLacks,
    };
    if let Some(named) = named.filter(|path| !path.as_os_str().is_empty()) {
        return match fs::canonicalize(&named) {
            Ok(path) => Ok(Some(path)),
            Err(error) => Err(missing(vec![format!("TUB_AGENT={}: {error}", named.display())])),
        };
    }
    let directory = ourselves.parent().unwrap_or(Path::new("/"));
    let candidates = [directory.join("../lib").join(AGENT), directory.join(AGENT)];
    let found = candidates.iter().find_map(|path| fs::canonicalize(path).ok());
    if found.is_none() && is_needed {
        let looked = |path: &PathBuf| format!("{}: there is no such file", path.display());
        return Err(missing(candidates.iter().map(looked).collect()));
    }
    Ok(found)
}

/// Where the agent is, or should be.
pub(crate) fn expected_agent() -> Result<PathBuf, Failure> {
    let ourselves = env::current_exe().map_err(|error| {
        Failure::new("cannot find the path of tub itself", &error, Code::Failed)
    })?;
    let found = find_agent(&ourselves, env::var_os("TUB_AGENT").map(PathBuf::from), false)?;
    let directory = ourselves.parent().unwrap_or(Path::new("/"));
    Ok(found.unwrap_or_else(|| directory.join("../lib").join(AGENT)))
}

/// Closes what the command would inherit by accident, from a terminal, an editor or a build. Gives what
/// it shall inherit.
fn close_inherited(kept: &[OsString]) -> Vec<i32> {
    let is_ours = env::var("LISTEN_PID").is_ok_and(|pid| pid == process::id().to_string());
    let listening = env::var("LISTEN_FDS").ok().filter(|_| is_ours);
    let first = 3 + listening.and_then(|count| count.parse::<i32>().ok()).unwrap_or(0);
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let (kept, open): (Vec<i32>, Vec<i32>) = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&fd| fd >= first)
        .partition(|&fd| is_kept(fd, kept));
    for fd in open {
        // One of them was the directory itself, which is closed already.
        let _ = nix::unistd::close(fd);
    }
    kept
}

/// Whether a descriptor is on the list, by its number or by where it leads.
fn is_kept(fd: i32, kept: &[OsString]) -> bool {
    let path = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    kept.iter().any(|item| *item == *fd.to_string() || *item == *path.as_os_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn java_gets_the_agent_as_its_first_argument() {
        let command = strings(&["/opt/jdk/bin/java", "-Xmx1g", "-jar", "app.jar"]);
        let launch = Launch::new(&command, Some(Path::new("/lib/a.so")), Some("-Da=b".into()));
        let arguments = strings(&["-agentpath:/lib/a.so", "-Xmx1g", "-jar", "app.jar"]);
        assert_eq!(launch, Launch { arguments, tool_options: None });
    }

    #[test]
    fn other_commands_pass_the_agent_on_by_the_environment() {
        let command = strings(&["gradlew", "bootRun"]);
        let launch = Launch::new(&command, Some(Path::new("/lib/a.so")), Some("-Da=b".into()));
        assert_eq!(launch.arguments, strings(&["bootRun"]));
        assert_eq!(launch.tool_options, Some("-Da=b -agentpath:/lib/a.so".into()));
        let launch = Launch::new(&command, Some(Path::new("/my lib/a.so")), None);
        assert_eq!(launch.tool_options, Some("\"-agentpath:/my lib/a.so\"".into()));
    }

    #[test]
    fn a_command_without_an_agent_is_left_as_it_is() {
        let launch = Launch::new(&strings(&["sleep", "1"]), None, Some("-Da=b".into()));
        assert_eq!(launch, Launch { arguments: strings(&["1"]), tool_options: None });
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let path = Some(OsStr::new("/nonexistent:/usr/bin:/bin"));
        assert!(find_program(OsStr::new("sh"), path).unwrap().ends_with("sh"));
        assert_eq!(find_program(OsStr::new("/bin/sh"), None), Ok("/bin/sh".into()));
        for (program, problem) in [
            ("no-such-program", "it is in no directory of PATH"),
            ("/no/such/program", "there is no such file"),
            ("/usr", "it is a directory"),
            ("/etc/passwd", "it may not be executed"),
        ] {
            assert_eq!(find_program(OsStr::new(program), path), Err(problem), "{program}");
        }
    }

    #[test]
    fn a_missing_agent_is_named_with_all_places_looked_at() {
        let failure = find_agent(Path::new("/opt/x/bin/tub"), None, true).unwrap_err();
        assert_eq!(failure.code, Code::HostLacks);
        assert_eq!(failure.causes.len(), 2);
        assert_eq!(find_agent(Path::new("/opt/x/bin/tub"), None, false).unwrap(), None);
        let failure = find_agent(Path::new("/"), Some("/no/such.so".into()), false).unwrap_err();
        assert!(failure.causes[0].contains("TUB_AGENT=/no/such.so"), "{failure:?}");
    }

    #[test]
    fn an_image_needs_a_directory_to_be_made_in() {
        let failure = image_path(Path::new("/no/such/parent/image")).unwrap_err();
        assert_eq!(failure.code, Code::CannotWrite);
        assert!(failure.hint.contains("mkdir -p /no/such/parent"), "{failure:?}");
        let here = image_path(Path::new("image")).unwrap();
        assert_eq!(here, env::current_dir().unwrap().join("image"));
    }
}
