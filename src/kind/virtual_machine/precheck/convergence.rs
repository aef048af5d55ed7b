//! Whether pre-copy ends: the dirty rate beside the bandwidth, what the model makes of them, and which setting would help.

use super::{Move, Sheet, mebibytes};
use crate::action::MigratedVolume;
use crate::domain_xml;
use crate::kind::migration_policy::{AutoConverge, MigrationPolicySpec, TimeoutAction};
use crate::model::{Bytes, Span};
use crate::observed::{Reading, RunState};
use crate::plan::Precheck::Convergence as Check;
use crate::plan::precopy::{
    Advice, Convergence, Known, Prediction, Raised, Range, Terms, WhenUp, Workload, advise, predict,
};

/// Bytes a second of a link of 1 Gbit/s: taken where neither host says its bandwidth.
const ASSUMED_LINK: u64 = 125_000_000;
/// Milliseconds of libvirt's own longest pause.
const DOWNTIME: u64 = 300;
/// How often a pause is raised where the policy does not say.
const RAISE_EVERY: u64 = 60_000;
/// QEMU's `cpu-throttle-initial` and `cpu-throttle-increment`, in per cent.
const THROTTLE: (u32, u32) = (20, 10);

/// Predicts the move; nothing for one that is not live.
pub(super) fn check(mv: &Move<'_>, copy: &[MigratedVolume], sheet: &mut Sheet<'_>) -> Option<Prediction> {
    if !mv.is_live() {
        sheet.pass(Check, "it moves while it is off: its memory is not sent");
        return None;
    }
    let (workload, terms) = (workload(mv, copy), terms(mv));
    let past = mv.ctx.options.past_moves.get(&mv.domain.uuid).map_or(&[][..], Vec::as_slice);
    let prediction = predict(&workload, &terms, past);
    let said = words(&prediction, &terms);
    let advice = || hint(&advise(&workload, &terms, past), &terms);
    match prediction.convergence {
        Convergence::Converges => sheet.pass(Check, said),
        Convergence::Unknown => {
            let why = match &mv.domain.dirty_rate {
                Some(Reading::Unknown { why }) => format!("how fast it writes to its memory was not measured: {why}"),
                _ if mv.policy.dirty_rate.measurement().is_none() => {
                    "how fast it writes to its memory is not measured (`dirtyRate: false`)".into()
                }
                _ => "how fast it writes to its memory is not known".into(),
            };
            sheet.unknown(Check, format!("{why}; {said}"));
        }
        Convergence::MayNot => sheet.doubt(Check, format!("it may not converge: {said}"), advice()),
        Convergence::Never if ends_otherwise(&terms) => {
            sheet.pass(Check, format!("pre-copy does not end by itself, and post-copy takes over: {said}"));
        }
        Convergence::Never if terms.at_timeout == WhenUp::Suspend => {
            sheet.doubt(Check, format!("it does not converge, and is paused when its time is up: {said}"), advice())
        }
        Convergence::Never => sheet.fail(
            Check,
            format!("it does not converge, and is aborted after {}: {said}", Span(terms.timeout_millis)),
            advice(),
        ),
    }
    Some(prediction)
}

/// Whether post-copy ends it.
fn ends_otherwise(terms: &Terms) -> bool {
    terms.post_copy_after_millis.is_some() || terms.post_copy_passes.is_some() || terms.at_timeout == WhenUp::PostCopy
}

fn workload(mv: &Move<'_>, copy: &[MigratedVolume]) -> Workload {
    let measured = match &mv.domain.dirty_rate {
        Some(Reading::Present(measured)) => Some(measured),
        _ => None,
    };
    let allocated = |v: &MigratedVolume| {
        let volume = mv.source.pools.get(&v.pool).and_then(|p| p.volumes.get(&v.volume));
        volume.map_or(v.capacity, |v| v.allocation.max(1))
    };
    Workload {
        memory: domain_xml::memory_bytes(mv.running_xml()),
        resident: measured.and_then(|m| m.resident),
        dirty_rate: match measured {
            // A guest that stands still writes nothing.
            _ if mv.domain.state == RunState::Paused => Some((0, 1)),
            Some(m) => Some((m.bytes_per_second, m.seconds)),
            None => None,
        },
        working_set: None,
        disks: copy.iter().map(allocated).sum(),
    }
}

fn terms(mv: &Move<'_>) -> Terms {
    let policy: &MigrationPolicySpec = mv.policy;
    let of = |host: &str| mv.ctx.resources.hosts.get(host).and_then(|h| h.spec.migration.bandwidth);
    let stated = [of(mv.from), of(mv.to)].into_iter().flatten().min();
    Terms {
        link: stated.map_or(ASSUMED_LINK, |rate| rate.bytes_per_second().max(1)),
        link_is: if stated.is_some() { Known::Stated } else { Known::Assumed },
        limit: policy.bandwidth.map(|rate| rate.bytes_per_second().max(1)),
        max_downtime_millis: policy.max_downtime.map_or(DOWNTIME, |d| d.0),
        raise: policy
            .raise_downtime
            .map(|r| Raised { every_millis: r.every.map_or(RAISE_EVERY, |e| e.0), up_to_millis: r.up_to.0 }),
        throttle: match policy.auto_converge {
            AutoConverge::Switch(false) => None,
            AutoConverge::Switch(true) => Some(THROTTLE),
            AutoConverge::By(t) => Some((t.initial.unwrap_or(THROTTLE.0), t.increment.unwrap_or(THROTTLE.1))),
        },
        post_copy_after_millis: policy.post_copy.as_ref().and_then(|p| p.after).map(|after| after.0),
        post_copy_passes: policy.post_copy.as_ref().and_then(|p| p.passes),
        post_copy_limit: policy.post_copy.as_ref().and_then(|p| p.bandwidth).map(|rate| rate.bytes_per_second()),
        timeout_millis: policy.timeout.after.0,
        at_timeout: match policy.timeout.action {
            TimeoutAction::Abort => WhenUp::Abort,
            TimeoutAction::PostCopy => WhenUp::PostCopy,
            TimeoutAction::Suspend => WhenUp::Suspend,
        },
    }
}

/// The figures, in words.
fn words(p: &Prediction, terms: &Terms) -> String {
    let writes = p.dirty_rate.map_or_else(String::new, |rate| format!("it writes {}/s, and ", mebibytes(rate)));
    let from = match p.past_moves {
        0 if terms.limit.is_some_and(|l| l < terms.link) => " by policy".to_owned(),
        0 if terms.link_is == Known::Assumed => " (assumed)".to_owned(),
        0 => String::new(),
        1 => " by its last move".to_owned(),
        n => format!(" by its last {n} moves"),
    };
    let pause = |millis: u64| Span(millis).to_string();
    format!(
        "{writes}{}/s can be sent{from}: {} s ({} to {}), {} ({} to {}), a pause of {} ({} to {}), {} passes",
        mebibytes(p.bandwidth),
        p.seconds.likely,
        p.seconds.low,
        p.seconds.high,
        mebibytes(p.bytes.likely),
        mebibytes(p.bytes.low),
        mebibytes(p.bytes.high),
        pause(tens(p.downtime_millis).likely),
        pause(tens(p.downtime_millis).low),
        pause(tens(p.downtime_millis).high),
        p.passes,
    )
}

/// Milliseconds that are an estimate, rounded to ten.
fn tens(range: Range<u64>) -> Range<u64> {
    let ten = |n: u64| n.div_ceil(10) * 10;
    Range { low: range.low / 10 * 10, likely: ten(range.likely), high: ten(range.high) }
}

/// Which settings would help.
fn hint(advice: &Advice, terms: &Terms) -> String {
    let mut ways = Vec::new();
    if let Some(rate) = advice.bandwidth {
        let rate = Bytes(rate.div_ceil(1 << 20) << 20);
        ways.push(match terms.limit.is_some_and(|limit| limit < terms.link) {
            true => format!("a `bandwidth` of {rate}/s"),
            false => format!("a link that carries {rate}/s"),
        });
    }
    if let Some(millis) = advice.max_downtime_millis {
        ways.push(format!("`maxDowntime: {}`", Span(millis)));
    }
    if let Some(seconds) = advice.auto_converge_seconds {
        ways.push(format!("`autoConverge: true` (about {} s, the guest is slowed down)", seconds.round()));
    }
    if let Some(seconds) = advice.post_copy_seconds {
        ways.push(format!("`postCopy: {{passes: 1}}` (about {} s)", seconds.round()));
    }
    match ways.len() {
        0 => "move it when it writes less, or while it is off".into(),
        _ => format!("in its migration policy any of these would help: {}", ways.join(", ")),
    }
}
