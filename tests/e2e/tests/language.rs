//! How a program that takes part is started in each language that there is a binding for, and given orders.
//!
//! In: which of the programs, a user. Out: its life, line by line.
//! Not here: what is asked of them (`languages`, `policies`, `python`, `services`).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{
    Instance, Scratch, Tub, User, app_left_open, app_subject, c_library, node_addon, skipped,
    wait_for,
};

/// Which of the programs: each language has a twin of both.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    /// It has resources.
    Subject,
    /// It leaves descriptors open.
    LeftOpen,
}

impl Which {
    fn stem(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::LeftOpen => "left_open",
        }
    }
}

/// Whose way it is to write such a program.
pub(crate) struct Language {
    pub(crate) name: &'static str,
    /// The words that start it, before and after the directory that it is given.
    pub(crate) before: Vec<String>,
    after: Vec<String>,
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Language {
    pub(crate) fn rust(which: Which) -> Self {
        let path = match which {
            Which::Subject => app_subject(),
            Which::LeftOpen => app_left_open(),
        };
        Self::program("Rust", path)
    }

    /// What needs no more than to be started.
    pub(crate) fn program(name: &'static str, path: &Path) -> Self {
        let before = vec![path.display().to_string()];
        Self { name, before, after: Vec::new(), variables: Vec::new() }
    }

    /// From the wheel, as pip makes it without a network.
    pub(crate) fn python(dir: &Scratch, which: Which, words: &[&str]) -> Option<Self> {
        let Some(python) = pythons().into_iter().next() else {
            skipped("no Python from 3.9 on");
            return None;
        };
        Some(Self::on(&python, dir, which, words))
    }

    pub(crate) fn on(python: &Path, dir: &Scratch, which: Which, words: &[&str]) -> Self {
        let site = python_site(python, dir);
        let program = copied("python", &format!("{}.py", which.stem()), dir);
        open_to_all(dir.path());
        let before = vec![python.display().to_string(), program.display().to_string()];
        let after = words.iter().map(|&word| word.to_owned()).collect();
        let variables = vec![("PYTHONPATH", site.display().to_string())];
        Self { name: "Python", before, after, variables }
    }

    /// As a package in `node_modules`.
    pub(crate) fn node(dir: &Scratch, which: Which) -> Option<Self> {
        let ask = "process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)";
        if !Command::new("node").args(["-e", ask]).status().is_ok_and(|status| status.success()) {
            skipped("no Node.js from 20 on");
            return None;
        }
        let modules = dir.make_dir("node_modules");
        let package = modules.join("tubthumping");
        fs::create_dir(&package).unwrap();
        for file in ["package.json", "index.js", "index.d.ts"] {
            fs::copy(root().join("bindings/node/package").join(file), package.join(file)).unwrap();
        }
        fs::copy(node_addon(), package.join("tubthumping.node")).unwrap();
        let program = copied("node", &format!("{}.mjs", which.stem()), dir);
        for dir in [dir.path(), &modules, &package] {
            open_to_all(dir);
        }
        let before = vec!["node".to_owned(), program.display().to_string()];
        Some(Self { name: "Node.js", before, after: Vec::new(), variables: Vec::new() })
    }

    /// Compiled here, into a directory that is to be kept for as long as the program runs.
    pub(crate) fn c(dir: &Scratch, which: Which) -> Option<Self> {
        let program = dir.join(which.stem());
        let source = format!("c/{}.c", which.stem());
        fs::copy(c_library(), dir.join("libtubthumping.so")).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-O1", "-I"]);
        compiler.arg(root().join("bindings/c/include")).arg(e2e().join(&source));
        compiler.arg("-o").arg(&program).arg("-L").arg(dir.path());
        compiler.args(["-ltubthumping", "-Wl,-rpath,$ORIGIN"]);
        let status = match compiler.status() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                skipped("no C compiler");
                return None;
            }
            status => status.expect("cc can be run"),
        };
        assert!(status.success(), "{source} does not compile");
        open_to_all(dir.path());
        Some(Self::program("C", &program))
    }
}

fn e2e() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn root() -> &'static Path {
    e2e().ancestors().nth(2).expect("tests/e2e lies two below")
}

/// A program of a directory here, where every user can reach it.
fn copied(from: &str, name: &str, dir: &Scratch) -> PathBuf {
    let program = dir.join(name);
    fs::copy(e2e().join(from).join(name), &program).unwrap();
    program
}

/// A directory for PYTHONPATH with the package, unpacked from its wheel.
pub(crate) fn python_site(python: &Path, dir: &Scratch) -> PathBuf {
    let site = dir.join("site");
    let sources = root().join("bindings/python");
    let mut wheel = Command::new(python);
    wheel.arg("-c").arg(
        "import sys; sys.path.insert(0, sys.argv[1]); import build_backend, zipfile\n\
         name = build_backend.build_wheel(sys.argv[2])\n\
         zipfile.ZipFile(sys.argv[2] + '/' + name).extractall(sys.argv[3])",
    );
    wheel.arg(&sources).arg(dir.path()).arg(&site).arg("");
    wheel.env("TUBTHUMPING_LIBRARY", c_library()).env("PYTHONDONTWRITEBYTECODE", "1");
    assert!(wheel.status().is_ok_and(|status| status.success()), "no wheel");
    site
}

/// Of each version of Python that is here and new enough, what starts it: `python3` and those of pyenv.
pub(crate) fn pythons() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/usr/bin/python3")];
    let versions = std::env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv/versions"));
    let entries = versions.and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    found.extend(entries.map(|entry| entry.path().join("bin/python3")));
    found.retain(|python| {
        let ask = "import sys, ssl, ctypes; sys.exit(sys.version_info < (3, 9))";
        Command::new(python).args(["-c", ask]).status().is_ok_and(|status| status.success())
    });
    found
}

/// A program under way.
pub(crate) struct Life {
    pub(crate) instance: Instance,
    pub(crate) seen: usize,
}

impl Life {
    /// After checkpoints that it asks for itself, it goes on. Where it leaves something open there is a file
    /// of rules, `policy`, which is empty.
    pub(crate) fn start(language: &Language, user: User, which: Which, options: &[&str]) -> Self {
        Self::start_with(language, user, which, options, "--leave-running --replace")
    }

    /// With options for checkpoints that it asks for itself.
    pub(crate) fn start_with(
        language: &Language,
        user: User,
        which: Which,
        options: &[&str],
        inside: &str,
    ) -> Self {
        let dir = Arc::new(Scratch::new(user));
        let state = dir.make_dir("state");
        let mut run = Tub::new(user, "run").arg("--image").arg(dir.join("inside"));
        if let Which::LeftOpen = which {
            let policy = dir.join("policy");
            fs::write(&policy, "").unwrap();
            run = run.arg("--policy").arg(&policy);
        }
        run = run.args(options).arg("--");
        for word in &language.before {
            run = run.arg(word);
        }
        run = run.arg(&state);
        for word in &language.after {
            run = run.arg(word);
        }
        let mut command = run.command();
        command.env("TUB_CHECKPOINT_OPTIONS", inside);
        command.envs(language.variables.iter().map(|(name, value)| (name, value)));
        let ready = |printed: &str| printed.contains("ready\n").then_some(());
        let mut life = Self::of(Instance::start(language.name, &dir, command, ready));
        life.lines_until("ready");
        life
    }

    /// One that was restored.
    pub(crate) fn of(instance: Instance) -> Self {
        Self { instance, seen: 0 }
    }

    /// Gives an order and waits until it has been carried out.
    #[track_caller]
    pub(crate) fn order(&mut self, order: &str) -> Vec<String> {
        self.instance.go(order);
        self.lines_until(&format!("did {order}"))
    }

    /// What it prints from where we last looked up to a line.
    #[track_caller]
    pub(crate) fn lines_until(&mut self, last: &str) -> Vec<String> {
        let new = wait_for(Duration::from_secs(60), || {
            let output = self.instance.output();
            let lines: Vec<_> = output.lines().skip(self.seen).map(str::to_owned).collect();
            let end = lines.iter().position(|line| line == last)?;
            Some(lines[..end].to_vec())
        });
        let new = new.unwrap_or_else(|| panic!("no {last:?}\n{}", self.instance.tell()));
        self.seen += new.len() + 1;
        new
    }

    /// What it complains of, once that is so.
    #[track_caller]
    pub(crate) fn complains(&self, of: &[&str]) {
        let told = wait_for(Duration::from_secs(60), || {
            let told = self.instance.complaints();
            of.iter().all(|word| told.contains(word)).then_some(())
        });
        told.unwrap_or_else(|| panic!("no {of:?}\n{}", self.instance.tell()));
    }

    /// A file of its directory.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.instance.dir().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn image(&self, name: &str) -> PathBuf {
        self.instance.dir().join(name)
    }
}

/// Lets every user in.
fn open_to_all(dir: &Path) {
    let _ = fs::set_permissions(dir, fs::Permissions::from_mode(0o755));
}
