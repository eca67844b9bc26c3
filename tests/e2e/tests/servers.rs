//! Servers that many people run, as they are: none of them knows of checkpoints.
//!
//! Each keeps something in memory, which two copies have and go on with, one after the other; the second copy
//! is checkpointed itself, and gets up again.
//!
//! `cargo xtask setup` unpacks them from Debian's packages; what cannot be had is skipped.

use crate::http::{free_port, get};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tub_testkit::{
    Flavour, Instance, Restore, Scratch, User, as_user, run_bounded, servers, skipped, wait_for,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with what the packages hold, and one to work in.
struct Place {
    root: PathBuf,
    dir: Arc<Scratch>,
    port: u16,
}

impl Place {
    /// Makes a directory; `None`, with the reason printed, where there are no servers.
    fn make() -> Option<Self> {
        let root = servers()?;
        Some(Self { root, dir: Arc::new(Scratch::new(User::Ordinary)), port: free_port() })
    }

    fn program(&self, name: &str) -> Command {
        self.command(&self.root.join(name))
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = as_user(User::Ordinary, program);
        command.current_dir(self.dir.path());
        command.env("LD_LIBRARY_PATH", self.root.join("usr/lib/x86_64-linux-gnu"));
        command.env("HOME", self.dir.path()).env("LC_ALL", "C");
        command
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Takes `command` through two lives and a third one of the second's image. `ask` gives a number that
    /// grows by one with each question, or anything else that stays.
    fn lives(self, name: &str, command: Command, ask: impl Fn(u16) -> io::Result<String>) {
        let port = self.port;
        let mut original = Instance::start(name, &self.dir, command, |_| Some(()));
        let answers = |instance: &Instance| {
            let answered = wait_for(PATIENCE, || ask(port).ok());
            answered.unwrap_or_else(|| panic!("{name} does not answer\n{}", instance.tell()))
        };
        let first = answers(&original);
        let second = answers(&original);
        let grows = first != second;
        let image = original.dir().join("image");
        let end = |instance: &mut Instance, image: &Path| {
            // What a client has just left may not be noticed yet.
            let done = instance.checkpoint(image, &["--tcp", "close"]).succeeds();
            assert!(instance.ends_within(PATIENCE).is_some(), "{done}\n{}", instance.tell());
        };
        end(&mut original, &image);

        let expected = |times: u64| match second.parse::<u64>() {
            Ok(number) if grows => (number + times).to_string(),
            _ => second.clone(),
        };
        let restored = || Restore::of(&original, &image, Flavour::USUAL).start();
        let copy = restored();
        assert_eq!([answers(&copy), answers(&copy)], [expected(1), expected(2)], "{name}");
        assert!(!copy.complaints().contains("warning"), "{}", copy.complaints());
        drop(copy);
        let mut copy = restored();
        assert_eq!(answers(&copy), expected(1), "{name}");
        let image = original.dir().join("image-2");
        end(&mut copy, &image);
        let again = Restore::of(&copy, &image, Flavour::USUAL).start();
        assert_eq!(answers(&again), expected(2), "{name}");
    }
}

/// The last line of what is said to `words`.
fn say(port: u16, words: &str) -> io::Result<String> {
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(words.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let line = answer.lines().rev().find(|line| !line.trim().is_empty() && *line != "+OK");
    line.map(|line| line.trim_start_matches(':').to_owned())
        .ok_or(io::ErrorKind::InvalidData.into())
}

#[test]
fn redis() {
    let Some(place) = Place::make() else { return };
    let mut command = place.program("usr/bin/redis-server");
    let port = place.port.to_string();
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
    place.lives("redis", command, |port| say(port, "INCR n\r\nQUIT\r\n"));
}

#[test]
fn memcached() {
    let Some(place) = Place::make() else { return };
    let mut command = place.program("usr/bin/memcached");
    command.args(["-l", "127.0.0.1", "-p", &place.port.to_string(), "-U", "0", "-t", "3"]);
    place.lives("memcached", command, |port| {
        say(port, "add n 0 0 1 noreply\r\n7\r\nincr n 1\r\nquit\r\n")
    });
}

#[test]
fn nginx() {
    let Some(place) = Place::make() else { return };
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths = paths.map(|name| format!("{name}_temp_path {name};")).concat();
    let configuration = format!(
        "worker_processes 3; daemon off; pid nginx.pid; error_log stderr;
        events {{ worker_connections 64; }}
        http {{ {paths} access_log access.log;
            limit_req_zone $binary_remote_addr zone=one:1m rate=1000r/s;
            server {{ listen 127.0.0.1:{};
                location / {{ limit_req zone=one burst=100; return 200 served; }} }} }}",
        place.port
    );
    place.write("nginx.conf", &configuration);
    let mut command = place.program("usr/sbin/nginx");
    command.args(["-c", "nginx.conf", "-e", "stderr", "-p"]).arg(place.dir.path());
    place.lives("nginx", command, |port| get(port, "/"));
}

#[test]
fn haproxy() {
    let Some(place) = Place::make() else { return };
    // Its watchdog has a timer for the processor time of each thread.
    let configuration = format!(
        "global\n nbthread 3\n maxconn 100\ndefaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n\
         frontend f\n bind 127.0.0.1:{}\n http-request return status 200 content-type text/plain string served\n",
        place.port
    );
    let path = place.write("haproxy.cfg", &configuration);
    let mut command = place.program("usr/sbin/haproxy");
    command.args(["-W", "-db", "-f"]).arg(path);
    place.lives("haproxy", command, |port| get(port, "/"));
}

#[test]
fn lighttpd() {
    let Some(place) = Place::make() else { return };
    place.write("page", "served");
    let configuration = format!(
        "server.document-root = \"{}\"\nserver.port = {}\nserver.bind = \"127.0.0.1\"\nserver.modules = ()\n",
        place.dir.path().display(),
        place.port
    );
    let path = place.write("lighttpd.conf", &configuration);
    let mut command = place.program("usr/sbin/lighttpd");
    command.arg("-D").arg("-f").arg(path);
    place.lives("lighttpd", command, |port| get(port, "/page"));
}

#[test]
fn gunicorn() {
    let Some(place) = Place::make() else { return };
    // One worker, whose number everybody sees. It tells its master that it is alive by changing the rights of
    // a file without a name.
    place.write(
        "served.py",
        "n = 0\ndef app(environ, start):\n  global n\n  n += 1\n  body = str(n).encode()\n  \
         start('200 OK', [('Content-Length', str(len(body)))])\n  return [body]\n",
    );
    let mut command = place.program("usr/bin/python3");
    command.env("PYTHONHOME", place.root.join("usr"));
    command.env("PYTHONPATH", place.root.join("usr/lib/python3/dist-packages"));
    command.args(["-m", "gunicorn", "-w", "1", "-b", &format!("127.0.0.1:{}", place.port)]);
    command.arg("served:app");
    place.lives("gunicorn", command, |port| get(port, "/"));
}

#[test]
fn ruby() {
    let Some(place) = Place::make() else { return };
    let text = format!(
        "require 'socket'\nserver = TCPServer.new('127.0.0.1', {})\nn = 0\nheap = {{}}\n\
         Thread.new {{ loop {{ sleep 0.01; heap[rand(20000)] = 'x' * 100 }} }}\n\
         loop {{ c = server.accept; while (l = c.gets) && l != \"\\r\\n\"; end; b = (n += 1).to_s\n\
         c.write \"HTTP/1.1 200 OK\\r\\nContent-Length: #{{b.size}}\\r\\n\\r\\n#{{b}}\"; c.close }}\n",
        place.port
    );
    let script = place.write("served.rb", &text);
    let library = place.root.join("usr/lib");
    let mut command = place.program("usr/bin/ruby");
    let paths = ["ruby/3.1.0", "x86_64-linux-gnu/ruby/3.1.0"].map(|path| library.join(path));
    command.env("RUBYLIB", std::env::join_paths(paths).unwrap()).arg(script);
    place.lives("ruby", command, |port| get(port, "/"));
}

#[test]
fn erlang() {
    let Some(place) = Place::make() else { return };
    let text = format!(
        "{{ok, L}} = gen_tcp:listen({}, [binary, {{active, false}}, {{reuseaddr, true}}, {{ip, {{127,0,0,1}}}}]),
         F = fun(F, N) -> {{ok, S}} = gen_tcp:accept(L), gen_tcp:recv(S, 0, 20000),
            gen_tcp:send(S, [\"HTTP/1.1 200 OK\\r\\n\\r\\n\", integer_to_list(N)]), gen_tcp:close(S), F(F, N + 1) end,
         F(F, 1).",
        place.port
    );
    let home = place.root.join("usr/lib/erlang");
    let releases = fs::read_dir(&home).unwrap().flatten().map(|entry| entry.path());
    let bin = releases.map(|path| path.join("bin")).find(|bin| bin.join("erlexec").exists());
    let bin = bin.expect("erlang-base has a runtime system");
    let mut command = place.command(&bin.join("erlexec"));
    command.env("ROOTDIR", &home).env("BINDIR", &bin).env("EMU", "beam").env("PROGNAME", "erl");
    command.args(["-noshell", "-noinput", "-eval", &text]);
    place.lives("erlang", command, |port| get(port, "/"));
}

#[test]
fn go() {
    let Some(place) = Place::make() else { return };
    let found = std::env::var_os("PATH").and_then(|paths| {
        std::env::split_paths(&paths).map(|path| path.join("go")).find(|path| path.exists())
    });
    let usual = Path::new("/usr/local/go/bin/go");
    let Some(go) = found.or_else(|| usual.exists().then(|| usual.to_owned())) else {
        return skipped("no Go");
    };
    let source = place.write(
        "served.go",
        "package main\nimport (\"fmt\"; \"net/http\"; \"os\"; \"sync/atomic\"; \"time\")\nvar n int64\nfunc main() {\n\
         go func() { for range time.Tick(5 * time.Millisecond) { _ = make([]byte, 1<<16) } }()\n\
         http.HandleFunc(\"/\", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, atomic.AddInt64(&n, 1)) })\n\
         panic(http.ListenAndServe(\"127.0.0.1:\" + os.Args[1], nil))\n}\n",
    );
    let program = place.dir.join("served");
    let mut build = as_user(User::Ordinary, &go);
    build.current_dir(place.dir.path()).env("HOME", place.dir.path());
    build
        .env("GOCACHE", place.dir.join("cache"))
        .env("GOFLAGS", "-mod=mod")
        .env("GO111MODULE", "off");
    build.arg("build").arg("-o").arg(&program).arg(source);
    run_bounded(build, Duration::from_secs(300)).succeeds();
    let mut command = place.command(&program);
    command.arg(place.port.to_string());
    place.lives("go", command, |port| get(port, "/"));
}
