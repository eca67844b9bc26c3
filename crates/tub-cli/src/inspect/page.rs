//! What `tub inspect` prints for people.
//!
//! In: an image. Out: a page of text. Invariant: nothing from the image reaches the terminal as it
//! is: see [`safe`].

use super::anatomy::{Anatomy, Kind, Sum};
use super::{describe_file, hex, list, path, protection, safe, size, sizes, utc};
use std::fmt::Write as _;
use tub_image::Image;
use tub_model::{Checkpoint, Task};
use tubthumping::auto_memory;

/// How many of the largest mappings are named.
const LARGEST: usize = 6;

/// The page, line by line: a label, or none for what belongs to the label above, and words.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, label: &str, text: impl AsRef<str>) {
        let _ = writeln!(self.text, "{label:<14}{}", safe(text.as_ref()));
    }

    /// Lines under one label.
    fn lines(&mut self, label: &str, texts: impl IntoIterator<Item = String>) {
        for (index, text) in texts.into_iter().enumerate() {
            self.line(if index == 0 { label } else { "" }, text);
        }
    }
}

/// Many short texts on lines of a page's width.
fn wrapped(texts: Vec<String>) -> Vec<String> {
    const WIDTH: usize = 100;
    let mut lines: Vec<String> = Vec::new();
    for text in texts {
        match lines.last_mut() {
            Some(line) if line.len() + text.len() + 2 <= WIDTH => {
                line.push_str(", ");
                line.push_str(&text);
            }
            _ => lines.push(text),
        }
    }
    lines
}

/// The page for people.
pub(super) fn describe(image: &Image) -> String {
    let checkpoint = &image.checkpoint;
    let origin = &checkpoint.provenance;
    let host = &checkpoint.host;
    let mut page = Page::default();
    page.line("image", image.dir.display().to_string());
    page.line("id", format!("{}, generation {}", hex(&origin.image_id), origin.generation));
    let when = utc(origin.created_unix_ns / 1_000_000_000);
    page.line("taken", format!("{when} by tub {}", origin.tool_version));
    let named = |pairs: &[(String, String)]| {
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    };
    page.lines("labels", named(&origin.labels));
    page.lines("metrics", wrapped(named(&origin.metrics)));
    page.line("size", sizes(image));
    let hot: u64 = image.hot().iter().map(|range| range.len()).sum();
    if hot > 0 {
        page.line("trained", format!("{} are in place before an instance runs", size(hot)));
    }
    match &checkpoint.coordination {
        None => page.line("coordination", "none: the application was not told"),
        Some(coordination) => {
            page.line("runtime", &coordination.runtime);
            page.line("resources", list(coordination.resources.iter().map(String::as_str)));
        }
    }
    for (index, task) in checkpoint.tasks.iter().enumerate() {
        describe_task(&mut page, image, task, &Anatomy::of(image, index));
    }
    for zombie in &checkpoint.zombies {
        let parent = checkpoint.tasks.get(zombie.parent).map_or(0, |parent| parent.pid.0);
        let how = format!("{} (pid {}), child of {parent}", zombie.name, zombie.pid);
        page.line("zombie", format!("{how}, ended with status {:#x}", zombie.status));
    }
    page.line("host", format!("{} Linux {}", host.arch, host.kernel_release));
    page.line("", format!("{}, xsave area {} bytes", host.cpu_model, host.xsave_bytes));
    if !image.unread.is_empty() {
        page.line("unread", format!("{} optional records of a newer release", image.unread.len()));
    }
    page.text
}

fn describe_task(page: &mut Page, image: &Image, task: &Task, anatomy: &Anatomy) {
    let deleted = if task.exe_deleted { ", deleted while it ran" } else { "" };
    page.line("process", format!("{} (pid {}){deleted}", task.exe.path, task.pid));
    let ([uid, ..], [gid, ..]) = (task.credentials.uids, task.credentials.gids);
    page.line("", format!("in {} as uid {uid}, gid {gid}", task.cwd));
    if image.checkpoint.tasks.len() > 1 {
        page.line("", relations(&image.checkpoint, task));
    }
    page.line("threads", list(task.threads.iter().map(|thread| thread.name.as_str())));
    page.lines("memory", memory(anatomy));
    page.line("", format!("restored {} where --memory is auto", auto_memory(task)));
    page.lines("largest", largest(task, anatomy));
    page.lines("secrets", secrets(anatomy));
    page.lines(
        "descriptors",
        task.fds.iter().map(|fd| {
            let file = image.checkpoint.files.get(fd.file);
            format!("{:>4}  {}", fd.number.0, file.map_or_else(String::new, describe_file))
        }),
    );
}

/// Whose child a process is, and in which group and session.
fn relations(checkpoint: &Checkpoint, task: &Task) -> String {
    let parent = task.parent.and_then(|parent| checkpoint.tasks.get(parent));
    let mut text = match parent {
        Some(parent) => format!("parent {}", parent.pid),
        None => "the main process".to_owned(),
    };
    if task.leads_session() {
        text.push_str(", leads a session");
    } else if task.group == task.pid {
        text.push_str(", leads a process group");
    } else {
        let _ = write!(text, ", process group {}", task.group);
    }
    if let Some(signal) = task.stopped {
        let _ = write!(text, ", stopped by signal {signal}");
    }
    text
}

/// By purpose, what takes most room first, and all together.
fn memory(anatomy: &Anatomy) -> Vec<String> {
    let mut kinds: Vec<(&str, Sum)> =
        anatomy.kinds.iter().map(|(kind, sum)| (kind.name(), *sum)).collect();
    kinds.sort_by_key(|(_, sum)| std::cmp::Reverse((sum.stored_bytes, sum.bytes)));
    let mut all = Sum::default();
    kinds.iter().for_each(|(_, sum)| all += *sum);
    kinds.push(("all", all));
    let line = |(kind, sum): (&str, Sum)| {
        let (bytes, saved, stored) =
            (size(sum.bytes), size(sum.saved_bytes), size(sum.stored_bytes));
        let count = sum.mappings;
        format!(
            "{kind:<14}{count:>5} mappings {bytes:>10}, {stored:>10} stored of {saved:>10} saved"
        )
    };
    kinds.into_iter().map(line).collect()
}

fn largest(task: &Task, anatomy: &Anatomy) -> Vec<String> {
    let mut order: Vec<usize> = (0..task.vmas.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(anatomy.mappings[at].1.stored_bytes));
    let named =
        order.into_iter().take(LARGEST).filter(|&at| anatomy.mappings[at].1.stored_bytes > 0);
    named
        .map(|at| {
            let (vma, (kind, sum)) = (&task.vmas[at], anatomy.mappings[at]);
            let what = match (kind, path(&vma.backing)) {
                (Kind::PrivateFile | Kind::SharedFile, Some(path)) => path,
                _ => kind.name(),
            };
            let (stored, bytes) = (size(sum.stored_bytes), size(sum.bytes));
            let rights = protection(vma.protection);
            format!("{stored:>10} stored, {bytes} of {what}, {} {rights}", vma.range)
        })
        .collect()
}

/// Names only, and what that means.
fn secrets(anatomy: &Anatomy) -> Vec<String> {
    let names = |names: &[String]| names.join(", ");
    let mut lines = Vec::new();
    if !anatomy.secrets.variables.is_empty() {
        let (found, all) = (names(&anatomy.secrets.variables), anatomy.variables);
        lines.push(format!("of {all} variables these look like secrets: {found}"));
    }
    if !anatomy.secrets.arguments.is_empty() {
        lines.push(format!("so do these arguments: {}", names(&anatomy.secrets.arguments)));
    }
    if lines.is_empty() {
        lines.push(format!("no name among {} variables looks like one", anatomy.variables));
    }
    lines.push("whatever the process had read or been sent is in the image, in clear".into());
    lines
}
