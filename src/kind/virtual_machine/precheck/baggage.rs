//! What hangs on a machine and cannot go along: saved memory, snapshots, checkpoints, jobs.

use super::{Move, Sheet, devices};
use crate::domain_xml::Element;
use crate::observed::JobOperation;
use crate::plan::Precheck;

pub(super) fn check(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    if mv.domain.managed_save {
        sheet.fail(
            Precheck::ManagedSave,
            "it has a saved memory image, which a move would leave behind",
            "start it, or drop the image (`virsh managedsave-remove`)",
        );
    } else {
        sheet.pass(Precheck::ManagedSave, "it has no saved memory image");
    }
    match mv.domain.snapshots {
        0 => sheet.pass(Precheck::Snapshots, "it has no snapshots"),
        n => sheet.fail(
            Precheck::Snapshots,
            format!("it has {n} {}, which libvirt does not move", if n == 1 { "snapshot" } else { "snapshots" }),
            "delete them (`virsh snapshot-delete`)",
        ),
    }
    match mv.domain.checkpoints {
        0 => sheet.pass(Precheck::Checkpoints, "it has no checkpoints"),
        n => sheet.fail(
            Precheck::Checkpoints,
            format!("it has {n} {}, which libvirt does not move", if n == 1 { "checkpoint" } else { "checkpoints" }),
            "delete them (`virsh checkpoint-delete`); the next backup is a full one",
        ),
    }
    for (disk, job) in devices(xml).filter(|d| d.name == "disk").filter_map(|d| Some((d, d.get("mirror")?))) {
        sheet.fail(
            Precheck::BlockJobs,
            format!(
                "a block job ({}) runs on disk {}",
                job.attribute("job").unwrap_or("copy"),
                disk.attribute_at("target", "dev").unwrap_or("?")
            ),
            "let it end, or end it (`virsh blockjob`)",
        );
    }
    sheet.otherwise(Precheck::BlockJobs, "no block job runs on its disks");
    match mv.domain.job.as_ref().filter(|j| j.operation == JobOperation::Other) {
        Some(job) => sheet.fail(
            Precheck::Jobs,
            format!("a job runs on it{}", job_words(job.progress.elapsed_millis, job.progress.remaining)),
            "let it end, or abort it (`virsh domjobabort`)",
        ),
        None => sheet.pass(Precheck::Jobs, "no job runs on it"),
    }
}

fn job_words(elapsed_millis: u64, remaining: u64) -> String {
    match (elapsed_millis / 1000, remaining) {
        (0, 0) => String::new(),
        (seconds, 0) => format!(", for {seconds} s"),
        (seconds, remaining) => format!(", for {seconds} s, with {} to do", super::mebibytes(remaining)),
    }
}
