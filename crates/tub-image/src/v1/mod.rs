//! Version 1 of the records, and their way from and to the model.
//!
//! In: parts of a [`tub_model::Checkpoint`], or records. Out: the other.
//! Invariant: there and back again is the same value. A record never changes once it is released:
//! a new field is a new version of the record (`FORMAT.md`, "Rules for change").
//! Not here: frames and checksums (`layout`), and whether the parts fit together (`structure`).
//!
//! Text and bytes are borrowed from the file's buffer, so that reading copies each once only.

mod fd;
mod memory;
mod socket;
mod task;

pub(crate) use fd::{DescriptorsRecord, FilesRecord};
pub(crate) use memory::{MemoryFilesRecord, MemoryRecord, RunsRecord};
pub(crate) use task::{SignalsRecord, TaskParts, TaskRecord, ThreadsRecord, ZombiesRecord};

use serde::{Deserialize, Serialize};
use tub_model::{Clocks, Coordination, HostFacts, Provenance, VdsoFacts, VdsoFunction};
use tub_units::AddrRange;

/// Why a record is not a value: the field that cannot be.
pub(crate) type Odd = &'static str;

#[derive(Serialize, Deserialize)]
pub(crate) struct ProvenanceRecord<'a> {
    tool_version: &'a str,
    created_unix_ns: u64,
    generation: u64,
    image_id: [u8; 16],
    #[serde(borrow)]
    labels: Vec<(&'a str, &'a str)>,
    #[serde(borrow)]
    metrics: Vec<(&'a str, &'a str)>,
}

impl<'a> ProvenanceRecord<'a> {
    pub(crate) fn new(provenance: &'a Provenance) -> Self {
        let Provenance { tool_version, created_unix_ns, generation, image_id, labels, metrics } =
            provenance;
        Self {
            labels: labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            metrics: metrics.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            tool_version,
            created_unix_ns: *created_unix_ns,
            generation: *generation,
            image_id: *image_id,
        }
    }

    pub(crate) fn into_model(self) -> Provenance {
        let Self { tool_version, created_unix_ns, generation, image_id, labels, metrics } = self;
        let owned = |(name, value): (&str, &str)| (name.into(), value.into());
        Provenance {
            tool_version: tool_version.into(),
            created_unix_ns,
            generation,
            image_id,
            labels: labels.into_iter().map(owned).collect(),
            metrics: metrics.into_iter().map(owned).collect(),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct HostRecord<'a> {
    arch: &'a str,
    kernel_release: &'a str,
    boot_id: &'a str,
    page_bytes: u64,
    cpu_model: &'a str,
    #[serde(borrow)]
    cpu_features: Vec<&'a str>,
    xsave_features: u64,
    xsave_bytes: u32,
    vdso_hash: u64,
    vdso_span_bytes: u64,
    vdso_vvar_bytes: u64,
    #[serde(borrow)]
    vdso_functions: Vec<(&'a str, u64)>,
}

impl<'a> HostRecord<'a> {
    pub(crate) fn new(host: &'a HostFacts) -> Self {
        let HostFacts {
            arch,
            kernel_release,
            boot_id,
            page_bytes,
            cpu_model,
            cpu_features,
            xsave_features,
            xsave_bytes,
            vdso: VdsoFacts { hash, span_bytes, vvar_bytes, functions },
        } = host;
        Self {
            arch,
            kernel_release,
            boot_id,
            page_bytes: *page_bytes,
            cpu_model,
            cpu_features: cpu_features.iter().map(String::as_str).collect(),
            xsave_features: *xsave_features,
            xsave_bytes: *xsave_bytes,
            vdso_hash: *hash,
            vdso_span_bytes: *span_bytes,
            vdso_vvar_bytes: *vvar_bytes,
            vdso_functions: functions
                .iter()
                .map(|function| (function.name.as_str(), function.offset_bytes))
                .collect(),
        }
    }

    pub(crate) fn into_model(self) -> HostFacts {
        let function =
            |(name, offset_bytes): (&str, u64)| VdsoFunction { name: name.into(), offset_bytes };
        HostFacts {
            arch: self.arch.into(),
            kernel_release: self.kernel_release.into(),
            boot_id: self.boot_id.into(),
            page_bytes: self.page_bytes,
            cpu_model: self.cpu_model.into(),
            cpu_features: self.cpu_features.into_iter().map(String::from).collect(),
            xsave_features: self.xsave_features,
            xsave_bytes: self.xsave_bytes,
            vdso: VdsoFacts {
                hash: self.vdso_hash,
                span_bytes: self.vdso_span_bytes,
                vvar_bytes: self.vdso_vvar_bytes,
                functions: self.vdso_functions.into_iter().map(function).collect(),
            },
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct ClocksRecord {
    monotonic_ns: u64,
    boottime_ns: u64,
    realtime_ns: u64,
}

impl ClocksRecord {
    pub(crate) fn new(clocks: Clocks) -> Self {
        let Clocks { monotonic_ns, boottime_ns, realtime_ns } = clocks;
        Self { monotonic_ns, boottime_ns, realtime_ns }
    }

    pub(crate) fn into_model(self) -> Clocks {
        let Self { monotonic_ns, boottime_ns, realtime_ns } = self;
        Clocks { monotonic_ns, boottime_ns, realtime_ns }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct CoordinationRecord<'a> {
    mailbox: RangeRecord,
    runtime: &'a str,
    #[serde(borrow)]
    resources: Vec<&'a str>,
}

impl<'a> CoordinationRecord<'a> {
    pub(crate) fn new(coordination: &'a Coordination) -> Self {
        let Coordination { mailbox, runtime, resources } = coordination;
        Self {
            mailbox: RangeRecord::new(*mailbox),
            runtime,
            resources: resources.iter().map(String::as_str).collect(),
        }
    }

    pub(crate) fn into_model(self) -> Result<Coordination, Odd> {
        Ok(Coordination {
            mailbox: self.mailbox.into_model().ok_or("mailbox ends before it starts")?,
            runtime: self.runtime.into(),
            resources: self.resources.into_iter().map(String::from).collect(),
        })
    }
}

/// A range of addresses, `start..end`.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct RangeRecord {
    start: u64,
    end: u64,
}

impl RangeRecord {
    pub(crate) const fn new(range: AddrRange) -> Self {
        Self { start: range.start(), end: range.end() }
    }

    pub(crate) const fn into_model(self) -> Option<AddrRange> {
        AddrRange::new(self.start, self.end)
    }
}
