//! Where the programs under test are, and how they come to be there.
//!
//! In: `TUB_BIN`; what `cargo xtask build` has laid out; cargo. Out: paths that an ordinary user
//! can reach.
//! Invariant: a layout older than the sources is not used, since a test of yesterday's engine
//! proves nothing.

use crate::{Scratch, User, alone};
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The product under test.
#[derive(Clone, Debug)]
pub struct Product {
    /// The command.
    pub tub: PathBuf,
    /// Where the agent lies if it was laid out beside the command.
    installed_agent: Option<PathBuf>,
}

/// The product under test: `$TUB_BIN`, else what `cargo xtask build` has laid out if it is as new
/// as the sources, else a debug build made now.
///
/// # Panics
///
/// If it cannot be built.
pub fn product() -> &'static Product {
    static PRODUCT: OnceLock<Product> = OnceLock::new();
    PRODUCT.get_or_init(|| {
        let product = find_product();
        // The way in is part of a failure's circumstances; cargo shows it when a test fails.
        eprintln!("tub under test: {}", product.tub.display());
        product
    })
}

fn find_product() -> Product {
    if let Some(path) = env::var_os("TUB_BIN") {
        return beside(PathBuf::from(path));
    }
    let laid_out = target_dir().join("tub/bin/tub");
    let sources = ["crates", "bindings"].iter().filter_map(|dir| newest(&root().join(dir))).max();
    match (modified(&laid_out), sources) {
        (Some(built), Some(changed)) if built >= changed => beside(laid_out),
        (laid, _) => {
            if laid.is_some() {
                eprintln!("{}: older than the sources, building anew", laid_out.display());
            }
            let tub = reachable(&cargo_build("tub-cli", &["--bin", "tub"], "tub"));
            Product { tub, installed_agent: None }
        }
    }
}

const AGENT: &str = "libtub_java_agent.so";

/// The product that `tub` is the command of.
fn beside(tub: PathBuf) -> Product {
    let dir = tub.parent().unwrap_or(Path::new("."));
    let agent = [dir.join("../lib").join(AGENT), dir.join(AGENT)].into_iter().find(|p| p.exists());
    // Copied only if need be, and then without its neighbours: the agent is named by TUB_AGENT.
    Product { installed_agent: agent.map(|path| reachable(&path)), tub: reachable(&tub) }
}

/// The Java agent under test, for `TUB_AGENT`: `None` if that is set already.
///
/// # Panics
///
/// If it cannot be built.
pub fn agent() -> Option<&'static Path> {
    static AGENT_BUILT: OnceLock<PathBuf> = OnceLock::new();
    if env::var_os("TUB_AGENT").is_some() {
        return None;
    }
    let build = || reachable(&cargo_build("tub-java-agent", &["--lib"], AGENT));
    let installed = product().installed_agent.as_deref();
    Some(installed.unwrap_or_else(|| AGENT_BUILT.get_or_init(build)))
}

/// The prober of `bench`, which can start a service in a network namespace of its own.
///
/// # Panics
///
/// If it cannot be built.
pub fn prober_binary() -> &'static Path {
    static PROBER: OnceLock<PathBuf> = OnceLock::new();
    let build = || reachable(&cargo_build("tub-bench", &["--bin", "tub-prober"], "tub-prober"));
    PROBER.get_or_init(build)
}

/// The multi-call binary of `tests/subjects`: `$TUB_SUBJECT`, else built now.
///
/// # Panics
///
/// If it cannot be built.
pub fn subject_binary() -> &'static Path {
    static SUBJECT: OnceLock<PathBuf> = OnceLock::new();
    SUBJECT.get_or_init(|| {
        if let Some(path) = env::var_os("TUB_SUBJECT") {
            return PathBuf::from(path);
        }
        reachable(&cargo_build("tub-subjects", &["--bin", "tub-subject"], "tub-subject"))
    })
}

/// The program in Rust that takes part in checkpoints (`examples/subject.rs` of `tubthumping-app`).
///
/// # Panics
///
/// If it cannot be built.
pub fn app_subject() -> &'static Path {
    static SUBJECT: OnceLock<PathBuf> = OnceLock::new();
    let target = ["--example", "subject"];
    let build = || reachable(&cargo_build("tubthumping-app", &target, "examples/subject"));
    SUBJECT.get_or_init(build)
}

/// The same, but one that leaves descriptors open (`examples/left_open.rs`).
///
/// # Panics
///
/// If it cannot be built.
pub fn app_left_open() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let target = ["--example", "left_open"];
    let build = || reachable(&cargo_build("tubthumping-app", &target, "examples/left_open"));
    PROGRAM.get_or_init(build)
}

/// The example service on axum.
///
/// # Panics
///
/// If it cannot be built.
pub fn axum_service() -> &'static Path {
    static SERVICE: OnceLock<PathBuf> = OnceLock::new();
    let build = || reachable(&cargo_build("axum-service", &["--bins"], "axum-service"));
    SERVICE.get_or_init(build)
}

/// The library for C, and what is made of it: `libtubthumping.so`.
///
/// # Panics
///
/// If it cannot be built.
pub fn c_library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let build = || reachable(&cargo_build("tubthumping-c", &["--lib"], "libtubthumping_c.so"));
    LIBRARY.get_or_init(build)
}

/// The engine that CRaC JDKs load: `libtubengine.so`, here without `bin/tub` beside it.
///
/// # Panics
///
/// If it cannot be built.
pub fn crac_engine() -> &'static Path {
    static ENGINE: OnceLock<PathBuf> = OnceLock::new();
    let build = || reachable(&cargo_build("tub-crlib", &["--lib"], "libtub_crlib.so"));
    ENGINE.get_or_init(build)
}

/// The addon for Node.js, `tubthumping.node`.
///
/// # Panics
///
/// If it cannot be built.
pub fn node_addon() -> &'static Path {
    static ADDON: OnceLock<PathBuf> = OnceLock::new();
    let build =
        || reachable(&cargo_build("tubthumping-node", &["--lib"], "libtubthumping_node.so"));
    ADDON.get_or_init(build)
}

/// A CRIU to test with: `$TUB_CRIU`, else the one that `cargo xtask setup` has unpacked. Says why
/// there is none, where there is none.
pub fn criu() -> Option<PathBuf> {
    unpacked("CRIU", "TUB_CRIU", "TUB_NO_CRIU", "criu/criu")
}

/// A root file system with container engines: `$TUB_CONTAINERS`, else the one that `cargo xtask setup` has
/// unpacked. Says why there is none, where there is none.
pub fn containers() -> Option<PathBuf> {
    unpacked("container engines", "TUB_CONTAINERS", "TUB_NO_CONTAINERS", "containers")
}

/// A root directory with a PostgreSQL server: `$TUB_POSTGRES`, else the host's, else the one that
/// `cargo xtask setup` has unpacked. Says why there is none, where there is none.
pub fn postgres() -> Option<PathBuf> {
    if let Ok(reason) = env::var("TUB_NO_POSTGRES") {
        crate::skipped(&format!("no PostgreSQL: {reason}"));
        return None;
    }
    let named = env::var_os("TUB_POSTGRES").map(PathBuf::from);
    let usual = [PathBuf::from("/"), target_dir().join("postgresql")];
    let mut roots = named.into_iter().chain(usual);
    let Some(root) = roots.find(|root| root.join("usr/lib/postgresql").is_dir()) else {
        crate::skipped("no PostgreSQL: `cargo xtask setup` gets it");
        return None;
    };
    // It refuses to be root's, and is too large to be copied.
    within_reach(root)
}

/// A root directory with servers of Debian's: `$TUB_SERVERS`, else the one that `cargo xtask setup` has unpacked.
/// Says why there is none, where there is none.
pub fn servers() -> Option<PathBuf> {
    if let Ok(reason) = env::var("TUB_NO_SERVERS") {
        crate::skipped(&format!("no servers: {reason}"));
        return None;
    }
    let named = env::var_os("TUB_SERVERS").map(PathBuf::from);
    let root = named.unwrap_or_else(|| target_dir().join("servers"));
    if !root.is_dir() {
        crate::skipped("no servers: `cargo xtask setup` gets them");
        return None;
    }
    within_reach(root)
}

/// A directory for PYTHONPATH with uvicorn: `$TUB_UVICORN`, else the one that `cargo xtask setup` has fetched. Says
/// why there is none, where there is none.
pub fn uvicorn() -> Option<PathBuf> {
    if let Ok(reason) = env::var("TUB_NO_UVICORN") {
        crate::skipped(&format!("no uvicorn: {reason}"));
        return None;
    }
    let named = env::var_os("TUB_UVICORN").map(PathBuf::from);
    let found = named.unwrap_or_else(|| target_dir().join("uvicorn"));
    if !found.join("uvicorn").is_dir() {
        crate::skipped("no uvicorn: `cargo xtask setup` gets it");
        return None;
    }
    Some(found)
}

/// The home of a JDK 21: `$TUB_JDK_21`, else the one that `cargo xtask setup` has unpacked. Says why there is
/// none, where there is none.
pub fn jdk_21() -> Option<PathBuf> {
    if let Ok(reason) = env::var("TUB_NO_JDK_21") {
        crate::skipped(&format!("no JDK 21: {reason}"));
        return None;
    }
    let named = env::var_os("TUB_JDK_21").map(PathBuf::from);
    let usual = target_dir().join("jdk-21/usr/lib/jvm/java-21-openjdk-amd64");
    let Some(home) = named.into_iter().chain([usual]).find(|home| home.join("release").is_file())
    else {
        crate::skipped("no JDK 21: `cargo xtask setup` gets it");
        return None;
    };
    if !is_open(&home) {
        crate::skipped(&format!("{}: out of an ordinary user's reach", home.display()));
        return None;
    }
    Some(home)
}

/// What `variable` names, else what lies at `place` below target/. What is unpacked need not work here,
/// which `cargo xtask test` has found out and says in `reason`.
fn unpacked(what: &str, variable: &str, reason: &str, place: &str) -> Option<PathBuf> {
    if !crate::is_root() {
        crate::skipped(&format!("{what}: root is wanted"));
        return None;
    }
    if let Ok(reason) = env::var(reason) {
        crate::skipped(&reason);
        return None;
    }
    let below_target = || Some(target_dir().join(place)).filter(|path| path.exists());
    let found = env::var_os(variable).map(PathBuf::from).or_else(below_target);
    if found.is_none() {
        crate::skipped(&format!("no {what}: `cargo xtask setup` gets it"));
    }
    found
}

/// Builds one `artifact` of the workspace, and gives its path.
fn cargo_build(package: &str, target: &[&str], artifact: &str) -> PathBuf {
    // cargo has a lock of its own, but says so on stderr each time it waits.
    let _alone = alone("build");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(["build", "--quiet", "--package", package]).args(target);
    let output = command.output().unwrap_or_else(|error| panic!("cargo cannot be run: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{artifact} cannot be built:\n{complaint}");
    target_dir().join("debug").join(artifact)
}

/// `path`, or a copy of it where an ordinary user cannot reach it (a checkout under /root).
fn reachable(path: &Path) -> PathBuf {
    static COPIES: OnceLock<PathBuf> = OnceLock::new();
    if is_open(path) {
        return path.to_owned();
    }
    let copies = COPIES.get_or_init(|| {
        // Never dropped: it must last as long as the tests.
        let scratch = Box::leak(Box::new(Scratch::new(User::Root)));
        let _ = fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755));
        eprintln!("{}: out of an ordinary user's reach, copied", path.display());
        scratch.path().to_owned()
    });
    let copy = copies.join(path.file_name().expect("a binary has a name"));
    fs::copy(path, &copy).unwrap_or_else(|error| panic!("{}: {error}", copy.display()));
    copy
}

/// The root, where an ordinary user may use what is in it; says so where not.
fn within_reach(root: PathBuf) -> Option<PathBuf> {
    if !is_open(&root) {
        crate::skipped(&format!("{}: out of an ordinary user's reach", root.display()));
        return None;
    }
    Some(root)
}

/// Whether an ordinary user can reach `path`.
fn is_open(path: &Path) -> bool {
    let open = |dir: &Path| fs::metadata(dir).is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
    User::Ordinary.change_to().is_none() || path.ancestors().all(open)
}

/// The root of the checkout.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("tests/testkit lies two levels below the root")
}

fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// When the newest source under `dir` was written.
fn newest(dir: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(dir).ok()?.flatten();
    entries
        .filter_map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return newest(&path);
            }
            let source = path.extension().is_some_and(|e| e == "rs" || e == "toml" || e == "ld");
            source.then(|| modified(&path)).flatten()
        })
        .max()
}
