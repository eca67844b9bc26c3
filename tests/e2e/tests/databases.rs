//! A service and its database: Spring Boot, JPA and Hikari on a real PostgreSQL, which lives on while the service
//! is an image.
//!
//! `cargo xtask test` builds the service and finds or fetches the server; where either cannot be had, this
//! is skipped.

use crate::frameworks::{Example, Probed};
use crate::jdk::{Jdk, jdks};
use nix::sys::signal::Signal;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tub_testkit::{
    Process, Scratch, Tub, User, alone, as_user, code, postgres, product, run_bounded, wait_for,
};

/// How long something small may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it answers when there is a pet more, which the test puts into the database.
const WITH_MAX: &str =
    "Greetings from Basil of Betty, Leo of George, Max of Jean, Rosy of Eduardo!";

/// A server of an ordinary user's on loopback, with a data directory of its own.
struct Database {
    server: Child,
    bin: PathBuf,
    libraries: Option<PathBuf>,
    port: u16,
}

impl Database {
    /// Makes and starts it, and waits until it answers; `None`, with the reason printed, where there is
    /// none.
    fn start(dir: &Scratch) -> Option<Self> {
        let root = postgres()?;
        let releases = fs::read_dir(root.join("usr/lib/postgresql")).unwrap().flatten();
        let bin = releases.map(|release| release.path().join("bin")).max().unwrap();
        // Unpacked ones find their libraries beside them.
        let libraries = (root != Path::new("/")).then(|| root.join("usr/lib/x86_64-linux-gnu"));
        let (data, port) = (dir.join("data"), free_port());
        let mut initdb = program(&bin, libraries.as_deref(), "initdb");
        initdb.args(["--username=clinic", "--auth=trust", "--no-sync", "--locale=C"]);
        initdb.arg("--pgdata").arg(&data).current_dir(dir.path());
        run_bounded(initdb, PATIENCE).succeeds();
        let mut server = program(&bin, libraries.as_deref(), "postgres");
        server.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        server.args([
            "-c",
            "unix_socket_directories=",
            "-c",
            "fsync=off",
            "-c",
            "shared_buffers=16MB",
        ]);
        let log = fs::File::create(dir.join("postgres.log")).unwrap();
        let server =
            server.current_dir(dir.path()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let database = Self { server, bin, libraries, port };
        let lives = || database.ask("select 1").is_ok_and(|said| said == "1").then_some(());
        let log = || fs::read_to_string(dir.join("postgres.log")).unwrap_or_default();
        wait_for(PATIENCE, lives).unwrap_or_else(|| panic!("no answer of the server:\n{}", log()));
        Some(database)
    }

    /// What psql says of a statement.
    fn ask(&self, statement: &str) -> Result<String, String> {
        let mut psql = program(&self.bin, self.libraries.as_deref(), "psql");
        psql.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            "clinic",
            "-d",
            "postgres",
        ]);
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "-c", statement]);
        let output = psql.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// How many connections the service has.
    fn connections(&self) -> usize {
        let drivers = "select count(*) from pg_stat_activity where application_name like '%JDBC%'";
        self.ask(drivers).unwrap().parse().unwrap()
    }

    fn url(&self) -> String {
        format!("jdbc:postgresql://127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // "Fast": it ends its children, and waits for no client.
        if let Some(server) = Process::find(i32::try_from(self.server.id()).unwrap_or_default()) {
            server.signal(Signal::SIGINT);
            if !server.is_gone_within(PATIENCE) {
                let _ = self.server.kill();
            }
        }
        let _ = self.server.wait();
    }
}

fn program(bin: &Path, libraries: Option<&Path>, name: &str) -> Command {
    let mut command = as_user(User::Ordinary, &bin.join(name));
    if let Some(libraries) = libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command.env("LC_ALL", "C");
    command
}

/// One that was free just now.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// The clinic, with its database, on a port of its own: in another network namespace it would not reach
/// the server.
struct Clinic {
    example: Example,
    database: Database,
    port: String,
    words: Vec<String>,
    // Removed when all that lives in it has ended.
    dir: Scratch,
}

impl Clinic {
    fn set(jdk: &Jdk, options: &[&str]) -> Option<Self> {
        let dir = Scratch::new(User::Ordinary);
        let example = Example::named("petclinic");
        let installed = example.install(&dir)?;
        let database = Database::start(&dir)?;
        let port = free_port().to_string();
        let word = |path: &Path| path.to_str().unwrap().to_owned();
        let mut words = vec![word(&product().tub), "run".into(), "--".into(), word(&jdk.java())];
        words.extend([
            "-Xmx256m".into(),
            format!("-Dserver.port={port}"),
            format!("-Dspring.datasource.url={}", database.url()),
            "-Dspring.datasource.username=clinic".into(),
            "-Dspring.datasource.hikari.maximum-pool-size=3".into(),
        ]);
        words.extend(options.iter().map(|&option| option.to_owned()));
        words.extend(["-jar".into(), word(&installed.jar)]);
        Some(Self { example, database, port, words, dir })
    }

    fn start(&self, name: &str, answer: &str, words: &[String]) -> Probed {
        let probed = Probed::start_at(&["--port", &self.port], &self.dir, name, answer, words);
        probed.told("first_correct_ms");
        probed
    }

    fn cold(&self) -> Probed {
        self.start("cold", &self.example.answer, &self.words)
    }

    fn restored(&self, name: &str, image: &Path) -> Probed {
        let words = [&product().tub, Path::new("restore"), image];
        self.start(name, WITH_MAX, &words.map(|word| word.to_str().unwrap().to_owned()))
    }
}

/// Spring suspends the pool and closes its connections, so that nothing is refused; the restored service
/// opens new ones, and sees what has come into the database in between.
#[test]
fn a_suspended_pool_connects_again() {
    let _alone = alone("jvm");
    let Some(jdk) = jdks().into_iter().next() else { return };
    let Some(clinic) = Clinic::set(&jdk, &[]) else { return };
    let database = &clinic.database;
    let images = ["first", "second"].map(|name| clinic.dir.join(name));

    let mut cold = clinic.cold();
    cold.answers(200);
    assert!(database.connections() > 0, "the service does not use this database");
    cold.checkpoint(&images[0], &[]);
    drop(cold);
    assert_eq!(connected_sockets(&images[0]), Vec::<String>::new());
    let none = || (database.connections() == 0).then_some(());
    assert!(wait_for(PATIENCE, none).is_some(), "connections of a process that has ended");
    database.ask("insert into pet (id, name, owner) values (4, 'Max', 'Jean')").unwrap();

    let mut restored = clinic.restored("restored", &images[0]);
    restored.answers(200);
    assert!(database.connections() > 0, "it answers without a connection");
    restored.checkpoint(&images[1], &[]);
    drop(restored);
    let mut again = clinic.restored("again", &images[1]);
    again.answers(200);
    assert_eq!(database.ask("select count(*) from pet"), Ok("4".to_owned()));
}

/// Sockets of an image that had a connection.
fn connected_sockets(image: &Path) -> Vec<String> {
    let tub = Tub::new(User::Ordinary, "inspect").arg(image).arg("--json");
    let told: serde_json::Value = serde_json::from_str(&tub.run().succeeds().stdout).unwrap();
    let descriptors = told["tasks"][0]["descriptors"].as_array().unwrap().iter();
    let words = descriptors.map(|descriptor| descriptor["what"].to_string());
    words.filter(|what| what.contains("TCP") && !what.contains("listening")).collect()
}

/// A pool that nobody may suspend keeps its connections: the checkpoint is refused and names them, and
/// the service goes on.
#[test]
fn a_connection_of_a_pool_is_named() {
    let _alone = alone("jvm");
    let Some(jdk) = jdks().into_iter().next() else { return };
    let held_fast = "-Dspring.datasource.hikari.allow-pool-suspension=false";
    let Some(clinic) = Clinic::set(&jdk, &[held_fast]) else { return };
    let mut cold = clinic.cold();
    cold.answers(200);
    let image = clinic.dir.join("image");
    let tub = Tub::new(User::Ordinary, "checkpoint").arg(cold.jvm().pid().to_string());
    let peer = format!("127.0.0.1]:{} was left open", clinic.database.port);
    let finished = tub.arg("--image").arg(&image).run();
    finished.fails_with(code::REFUSED, &["TCP socket", &peer]);
    assert!(!image.exists());
    cold.answers(200);
}
