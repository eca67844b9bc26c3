//! `tub status`: where a process stands, and what is in the way of a checkpoint.
//!
//! In: a pid. Out: a page for people, or one JSON object. Invariant: what the application says of itself
//! reaches the terminal as text only: it may be another user's.

use crate::inspect::safe;
use crate::noted::noted;
use crate::prepare::NO_PART;
use crate::report::{Code, Failure};
use std::process::ExitCode;
use tubthumping::{Client, ClientError, EngineError, HostPid};

/// Tell whether a process takes part in checkpoints, and what stands in the way of one.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The process.
    pid: i32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let pid = HostPid(args.pid);
    let what = || format!("process {pid} cannot be looked into");
    let seen = tub_checkpoint::survey_tree(pid).map_err(|error| {
        let code = match error {
            EngineError::NoSuchProcess { .. } | EngineError::NotOurs { .. } => Code::NoSuchProcess,
            _ => Code::Failed,
        };
        Failure::new(what(), &error, code)
    })?;
    let status = Client::find(pid)
        .and_then(|client| client.map(|mut client| client.status()).transpose())
        .map_err(|error| {
            let late = matches!(error, ClientError::TimedOut { .. });
            Failure::new(what(), &error, if late { Code::TimedOut } else { Code::Failed })
        })?;
    // Its socket is closed until then.
    let prepared = status.is_none()
        && noted(pid).is_some_and(|preparation| tubthumping::is_waiting(&preparation));
    let in_the_way: Vec<String> = tub_checkpoint::unsupported_tree(
        &seen,
        &tub_checkpoint::control_sockets(seen.main()),
        tub_checkpoint::TcpPolicy::Refuse,
    )
    .iter()
    .map(ToString::to_string)
    .collect();
    if args.json {
        let object = serde_json::json!({
            "pid": args.pid,
            "coordination": status,
            "prepared": prepared,
            "processes": seen.members.iter().map(|member| member.pid.0).collect::<Vec<_>>(),
            "zombies": seen.zombies.iter().map(|zombie| zombie.stat.pid.0).collect::<Vec<_>>(),
            "in_the_way": in_the_way,
        });
        println!("{object}");
        return Ok(ExitCode::SUCCESS);
    }
    match &status {
        Some(status) => {
            println!("runtime     {}", safe(&status.runtime));
            println!("state       {:?}", status.state);
            println!("generation  {}", status.generation);
            println!("image       {}", safe(status.image.as_deref().unwrap_or("not set")));
            for resource in &status.resources {
                println!("resource    {}", safe(resource));
            }
        }
        None if prepared => {
            println!("prepared: it waits for its image, or until `tub resume {pid}` has it go on")
        }
        None => println!("takes no part: {NO_PART}"),
    }
    for member in &seen.members[1..] {
        println!("descendant  {} ({})", member.pid, safe(&member.stat.comm));
    }
    for zombie in &seen.zombies {
        println!("zombie      {} ({})", zombie.stat.pid, safe(&zombie.stat.comm));
    }
    if in_the_way.is_empty() {
        println!("nothing stands in the way now");
    }
    for object in in_the_way {
        println!("in the way  {}", safe(&object));
    }
    Ok(ExitCode::SUCCESS)
}
