//! What `tub inspect --json` prints.
//!
//! In: an image. Out: one object. Invariant: a contract (`docs/inspect.md`): keys are added, never
//! renamed or given another meaning within one `format`; words of 64 bits that are no counts are
//! text, for they do not survive readers that have only doubles.

use super::anatomy::{Anatomy, Sum};
use super::{describe_file, hex, path, protection, stored_bytes};
use serde_json::{Map, Value, json};
use tub_image::Image;
use tub_model::{Fd, Task, Thread};
use tubthumping::auto_memory;

/// Everything but registers and pages, as one object.
pub(super) fn describe(image: &Image) -> Value {
    let checkpoint = &image.checkpoint;
    let origin = &checkpoint.provenance;
    let host = &checkpoint.host;
    let tasks = checkpoint.tasks.iter().enumerate();
    let tasks = tasks.map(|(index, task)| describe_task(image, task, &Anatomy::of(image, index)));
    json!({
        "format": 1,
        "image": image.dir.display().to_string(),
        "id": hex(&origin.image_id),
        "generation": origin.generation,
        "tool_version": origin.tool_version,
        "created_unix_ns": origin.created_unix_ns,
        "labels": origin.labels,
        "metrics": origin.metrics,
        "inventory_bytes": image.inventory_bytes,
        "pages_bytes": image.pages_bytes,
        "stored_bytes": stored_bytes(image),
        "runs": image.runs.iter().map(Vec::len).sum::<usize>(),
        "hot_bytes": image.hot().iter().map(|range| range.len()).sum::<u64>(),
        "coordination": checkpoint.coordination.as_ref().map(|coordination| json!({
            "runtime": coordination.runtime,
            "resources": coordination.resources,
        })),
        "tasks": tasks.collect::<Vec<_>>(),
        "zombies": checkpoint.zombies.iter().map(|zombie| json!({
            "pid": zombie.pid.0,
            "parent": zombie.parent,
            "name": zombie.name,
            "status": zombie.status,
        })).collect::<Vec<_>>(),
        "host": {
            "arch": host.arch,
            "kernel_release": host.kernel_release,
            "boot_id": host.boot_id,
            "page_bytes": host.page_bytes,
            "cpu_model": host.cpu_model,
            "cpu_features": host.cpu_features,
            "xsave_features": format!("{:#x}", host.xsave_features),
            "xsave_bytes": host.xsave_bytes,
            "vdso_hash": format!("{:#x}", host.vdso.hash),
        },
        "unread_records": image.unread.len(),
    })
}

fn describe_task(image: &Image, task: &Task, anatomy: &Anatomy) -> Value {
    let files = &image.checkpoint.files;
    let thread = |thread: &Thread| json!({"tid": thread.tid.0, "name": thread.name});
    let mappings = task.vmas.iter().zip(&anatomy.mappings).map(|(vma, (kind, sum))| {
        json!({
            "range": vma.range.to_string(),
            "protection": protection(vma.protection),
            "kind": kind.name(),
            "path": path(&vma.backing),
            "bytes": sum.bytes,
            "saved_bytes": sum.saved_bytes,
            "stored_bytes": sum.stored_bytes,
        })
    });
    let fd = |fd: &Fd| {
        json!({
            "fd": fd.number.0,
            "description": fd.file,
            "close_on_exec": fd.close_on_exec,
            "what": files.get(fd.file).map(describe_file),
        })
    };
    let auto = auto_memory(task);
    let by_kind = anatomy.kinds.iter().map(|(kind, sum)| {
        let Sum { mappings, bytes, saved_bytes, stored_bytes } = *sum;
        let sum = json!({
            "mappings": mappings,
            "bytes": bytes,
            "saved_bytes": saved_bytes,
            "stored_bytes": stored_bytes,
        });
        (kind.name().to_owned(), sum)
    });
    json!({
        "pid": task.pid.0,
        "parent": task.parent,
        "group": task.group.0,
        "session": task.session.0,
        "stopped_by": task.stopped,
        "exe": task.exe.path,
        "exe_deleted": task.exe_deleted,
        "cwd": task.cwd,
        "uids": task.credentials.uids,
        "gids": task.credentials.gids,
        "groups": task.credentials.groups,
        "threads": task.threads.iter().map(thread).collect::<Vec<_>>(),
        "memory": by_kind.collect::<Map<_, _>>(),
        "auto_memory": { "lazy": auto.lazy, "reason": auto.reason },
        "mappings": mappings.collect::<Vec<_>>(),
        "descriptors": task.fds.iter().map(fd).collect::<Vec<_>>(),
        "posix_timers": task.posix_timers.len(),
        "pending_signals": task.pending_signals.len(),
        "variables": anatomy.variables,
        "secret_variables": anatomy.secrets.variables,
        "secret_arguments": anatomy.secrets.arguments,
    })
}
