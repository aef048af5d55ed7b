//! A model of pre-copy migration: how long a move takes, how much it sends, how long the guest stands still, and whether it
//! ends at all. Pure arithmetic on what was measured; docs/convergence.md has the formula, its limits and measured figures.
//!
//! Pre-copy sends the memory, then what the guest wrote meanwhile, then what it wrote during that, and so on. A pass that
//! sends `v` bytes at `b` bytes a second takes `v / b` seconds, in which a guest that writes to `r` new bytes a second out
//! of a working set of `w` dirties `min(r · v / b, w)`: that is the next pass. It ends when what is left fits into the
//! longest pause at the rate at hand, and it never does where neither `r / b` falls below one nor `w` into the pause.

use crate::model::Bytes;
use crate::observed::Progress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Seconds that libvirt and QEMU take before the first byte and after the last (lab, 26 moves: 0.1 to 1.1 s).
const SETUP: Range<f64> = Range { low: 0.1, likely: 0.4, high: 1.5 };
/// Milliseconds of the switch itself, with nothing left to send (lab: 49 to 268 ms).
const SWITCH: Range<f64> = Range { low: 30.0, likely: 110.0, high: 320.0 };
/// Memory of a QEMU process that is not the guest's, in bytes: its heap, under software emulation its translated code, too
/// (lab: 67 to 134 MiB under emulation).
const OWN: Range<f64> = Range { low: 144.0 * MIB, likely: 90.0 * MIB, high: 24.0 * MIB };
/// What a page stands for in a sample of 512 a gigabyte, in bytes: the grain of a sampled dirty rate.
const GRAIN: f64 = 2.0 * MIB;
/// After so many passes a migration counts as one that does not end by itself.
const MOST_PASSES: u32 = 2_000;
const MIB: f64 = 1_048_576.0;
/// QEMU throttles a guest after two passes in which it wrote half of what was sent (`throttle-trigger-threshold`).
const THROTTLE_AT: f64 = 0.5;

/// A value that is known within bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Range<T> {
    /// Not likely less.
    pub low: T,
    /// The most likely one.
    pub likely: T,
    /// Not likely more.
    pub high: T,
}

impl<T: PartialOrd + Copy> Range<T> {
    /// Whether a measured value is within it.
    pub fn holds(&self, value: T) -> bool {
        self.low <= value && value <= self.high
    }
}

/// What moves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Workload {
    /// Memory of the guest, in bytes.
    pub memory: u64,
    /// Memory of the host that its process takes, in bytes, where that is known: pages that were never written to are not
    /// sent.
    pub resident: Option<u64>,
    /// Bytes of different pages that the guest writes to in a second, and over how many seconds that was measured.
    pub dirty_rate: Option<(u64, u32)>,
    /// Bytes of different pages that it keeps writing to, where that is known; all of what it uses else.
    pub working_set: Option<u64>,
    /// Bytes of disks that are copied before the memory.
    pub disks: u64,
}

/// How it moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// Bytes a second of the link.
    pub link: u64,
    /// How sure that is.
    pub link_is: Known,
    /// Bytes a second that the policy allows, where it sets a limit. Nothing limits what is sent in the pause.
    pub limit: Option<u64>,
    /// Longest pause, in milliseconds.
    pub max_downtime_millis: u64,
    /// The pause is doubled every so many milliseconds, up to so many.
    pub raise: Option<Raised>,
    /// How the guest is slowed down, in per cent: at first, and more each time.
    pub throttle: Option<(u32, u32)>,
    /// Post-copy takes over after so many milliseconds.
    pub post_copy_after_millis: Option<u64>,
    /// Post-copy takes over after so many passes.
    pub post_copy_passes: Option<u32>,
    /// Bytes a second in post-copy, where they are limited.
    pub post_copy_limit: Option<u64>,
    /// When the time is up, in milliseconds.
    pub timeout_millis: u64,
    /// What then.
    pub at_timeout: WhenUp,
}

/// How a pause is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised {
    /// Every so many milliseconds.
    pub every_millis: u64,
    /// Up to so many.
    pub up_to_millis: u64,
}

/// How sure a bandwidth is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was seen in earlier moves of the machine.
    Measured,
    /// A manifest says so.
    Stated,
    /// Nothing says so.
    Assumed,
}

/// What happens at the time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUp {
    /// The migration is aborted.
    Abort,
    /// Post-copy takes over.
    PostCopy,
    /// The guest is paused.
    Suspend,
}

/// Whether pre-copy ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Convergence {
    /// It does.
    Converges,
    /// It is likely to; within what is not known exactly, it may not.
    MayNot,
    /// It does not: the time-out, post-copy or a pause ends it.
    Never,
    /// The dirty rate is not known.
    Unknown,
}

/// What a live migration is expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Prediction {
    /// Seconds from its beginning to its end, as libvirt counts them.
    pub seconds: Range<f64>,
    /// Bytes sent.
    pub bytes: Range<u64>,
    /// Milliseconds in which the guest stands still.
    pub downtime_millis: Range<u64>,
    /// Passes over the memory.
    pub passes: u32,
    /// Whether pre-copy ends by itself.
    pub convergence: Convergence,
    /// Bytes a second that are counted on.
    pub bandwidth: u64,
    /// Bytes a second that link and policy allow, whatever earlier moves reached.
    #[serde(default)]
    pub ceiling: u64,
    /// Bytes of different pages that the guest writes to in a second, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty_rate: Option<u64>,
    /// Earlier moves of the machine that it rests on.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub past_moves: u32,
    /// By how much what earlier moves sent differs from what the model says, as a factor that is in the figures above.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub correction: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn one() -> f64 {
    1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands references")]
fn is_one(factor: &f64) -> bool {
    (*factor - 1.0).abs() < f64::EPSILON
}

/// What a migration was in the end (the completed job's statistics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Measured {
    /// Seconds, as libvirt counts them.
    pub seconds: f64,
    /// Bytes sent.
    pub bytes: u64,
    /// Milliseconds in which the guest stood still; 0 where it was not told (post-copy).
    pub downtime_millis: u64,
    /// Passes over the memory.
    pub passes: u64,
}

impl Measured {
    /// From a job's progress; nothing where it tells nothing.
    pub fn of(p: &Progress) -> Option<Self> {
        (p.elapsed_millis > 0).then(|| Self {
            seconds: float(p.elapsed_millis) / 1000.0,
            bytes: p.processed,
            downtime_millis: if p.completed { p.downtime_millis } else { 0 },
            passes: p.iteration,
        })
    }
}

/// An earlier move of the same machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastMove {
    /// What was predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted: Option<Prediction>,
    /// What it was.
    pub measured: Measured,
}

/// What a migration was, beside what was predicted, in words.
pub fn words(figures: &PastMove) -> String {
    let m = &figures.measured;
    let was = |low: String, high: String| format!(" (predicted {low} to {high})");
    let size = |bytes: u64| Bytes(if bytes < 1 << 20 { bytes >> 10 << 10 } else { bytes >> 20 << 20 });
    let [mut time, mut sent, mut pause] = [const { String::new() }; 3];
    if let Some(p) = &figures.predicted {
        time = was(p.seconds.low.to_string(), p.seconds.high.to_string());
        sent = was(size(p.bytes.low).to_string(), size(p.bytes.high).to_string());
        pause = was(p.downtime_millis.low.to_string(), p.downtime_millis.high.to_string());
    }
    let stood = if m.downtime_millis > 0 {
        format!("stood still for {} ms{pause}", m.downtime_millis)
    } else {
        "how long it stood still was not told".into()
    };
    format!("{:.1} s{time}, {} sent{sent} in {} passes, {stood}", m.seconds, size(m.bytes), m.passes)
}

/// What would make a migration end that does not by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advice {
    /// Bytes a second at which it ends.
    pub bandwidth: Option<u64>,
    /// Longest pause in milliseconds with which it ends.
    pub max_downtime_millis: Option<u64>,
    /// Seconds that it takes when the guest is slowed down, where that is not done yet and helps.
    pub auto_converge_seconds: Option<f64>,
    /// Seconds that it takes with post-copy, where that is not allowed yet.
    pub post_copy_seconds: Option<f64>,
}

/// One course of a migration.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Course {
    seconds: f64,
    bytes: f64,
    downtime_millis: f64,
    passes: u32,
    by_itself: bool,
}

/// One set of values out of the ranges.
#[derive(Clone, Copy, Debug)]
struct Values {
    volume: f64,
    rate: f64,
    working_set: f64,
    bandwidth: f64,
    link: f64,
    disks: f64,
    setup: f64,
    switch: f64,
    /// Part of its time in which the guest's CPUs work: one that sleeps most of the time is slowed down late.
    busy: f64,
}

/// Predicts a migration, from what moves, how, and how earlier moves of the same machine went.
pub fn predict(workload: &Workload, terms: &Terms, past: &[PastMove]) -> Prediction {
    let corner = corners(workload, terms, past);
    let [low, likely, high] = corner.values.map(|v| run(&v, terms));
    let convergence = match (workload.dirty_rate, likely.by_itself, high.by_itself) {
        (None, ..) => Convergence::Unknown,
        (_, true, true) => Convergence::Converges,
        (_, true, false) => Convergence::MayNot,
        (_, false, _) => Convergence::Never,
    };
    let range = |of: fn(&Course) -> f64| {
        let (a, b, c) = (of(&low), of(&likely), of(&high));
        Range { low: a.min(b).min(c), likely: b, high: a.max(b).max(c) }
    };
    let whole = |r: Range<f64>| Range { low: number(r.low), likely: number(r.likely), high: number(r.high) };
    let tenths = |r: Range<f64>| Range {
        low: (r.low * 10.0).floor() / 10.0,
        likely: (r.likely * 10.0).round() / 10.0,
        high: (r.high * 10.0).ceil() / 10.0,
    };
    Prediction {
        seconds: tenths(range(|c| c.seconds)),
        bytes: whole(range(|c| c.bytes)),
        downtime_millis: whole(range(|c| c.downtime_millis)),
        passes: likely.passes,
        convergence,
        bandwidth: number(corner.values[1].bandwidth),
        ceiling: terms.limit.map_or(terms.link, |l| l.min(terms.link)),
        dirty_rate: workload.dirty_rate.map(|(rate, _)| rate),
        past_moves: corner.past_moves,
        correction: corner.correction,
    }
}

/// What would help a migration that does not end by itself, or may not. Searched with the model itself, on its careful side.
pub fn advise(workload: &Workload, terms: &Terms, past: &[PastMove]) -> Advice {
    let values = corners(workload, terms, past).values[2];
    let plain = Terms {
        limit: None,
        raise: None,
        throttle: None,
        post_copy_after_millis: None,
        post_copy_passes: None,
        timeout_millis: u64::MAX,
        at_timeout: WhenUp::Abort,
        ..*terms
    };
    // Steps of an eighth, up to a thousand times as much.
    let bandwidth = (1..80)
        .map(|i| values.bandwidth * 1.125_f64.powi(i))
        .find(|b| run(&Values { bandwidth: *b, link: values.link.max(*b), ..values }, &plain).by_itself);
    let steady = {
        let mut pass = values.volume;
        for _ in 0..200 {
            pass = dirtied(&values, 0.0, pass / values.bandwidth);
        }
        // A third more than what is left again and again.
        pass / values.bandwidth * 1.33 * 1000.0
    };
    let downtime = (values.rate > 0.0)
        .then(|| round_up(steady.max(f64::from(u32::try_from(terms.max_downtime_millis).unwrap_or(u32::MAX)))));
    let slowed = run(&values, &Terms { throttle: Some((20, 10)), ..plain });
    let may_post_copy = terms.post_copy_after_millis.is_some()
        || terms.post_copy_passes.is_some()
        || terms.at_timeout == WhenUp::PostCopy;
    let after = number(values.volume / values.bandwidth * 1000.0);
    let switched = run(&values, &Terms { post_copy_after_millis: Some(after), ..plain });
    Advice {
        bandwidth: bandwidth.map(number),
        max_downtime_millis: downtime,
        auto_converge_seconds: (terms.throttle.is_none() && slowed.by_itself).then_some(slowed.seconds),
        post_copy_seconds: (!may_post_copy).then_some(switched.seconds),
    }
}

/// The bounds of everything that is not known exactly.
struct Corners {
    /// The best case, the likely one, the worst.
    values: [Values; 3],
    past_moves: u32,
    correction: f64,
}

fn corners(workload: &Workload, terms: &Terms, past: &[PastMove]) -> Corners {
    let memory = float(workload.memory);
    let volume = match workload.resident {
        // An idle guest has written to a part of its memory only; how much of a process is the guest's is not told.
        Some(resident) => {
            let guest = |own: f64| (float(resident) - own).max(float(resident) / 4.0).clamp(0.0, memory);
            Range { low: guest(OWN.low), likely: guest(OWN.likely), high: guest(OWN.high) }
        }
        None => Range { low: memory * 0.1, likely: memory, high: memory },
    };
    let history = History::of(past, terms);
    let correction = history.correction.unwrap_or(1.0);
    let volume = match history.correction {
        // What it really was bounds it better than what a process takes.
        Some(_) => {
            // One move may have been an exception.
            let (down, up) = if history.moves > 1 { (0.75, 1.35) } else { (0.55, 1.7) };
            let likely = volume.likely * correction;
            Range { low: likely * down, likely, high: (likely * up).min(memory.max(likely)) }
        }
        None => volume,
    };
    let spread = |at: f64, low: f64, high: f64| Range { low: at * low, likely: at, high: at * high };
    let link = match (history.bandwidth, terms.link_is) {
        (Some(seen), _) => spread(seen, 0.75, 1.35),
        (None, Known::Measured) => spread(float(terms.link), 0.7, 1.4),
        // A link carries no more than it says, and memory is often copied more slowly than it would carry.
        (None, Known::Stated) => spread(float(terms.link), 0.5, 1.05),
        (None, Known::Assumed) => spread(float(terms.link), 0.4, 3.0),
    };
    let allowed = |link: f64, slack: f64| terms.limit.map_or(link, |limit| link.min(float(limit) * slack)).max(1.0);
    let rate = match workload.dirty_rate {
        None => Range { low: 0.0, likely: 0.0, high: 0.5 * allowed(link.low, 0.95) },
        Some((rate, seconds)) => {
            // A sample counts pages: its error is that of a count.
            let seconds = f64::from(seconds.max(1));
            let count = float(rate) * seconds / GRAIN;
            let error = (count + 1.0).sqrt() * GRAIN / seconds;
            let rate = float(rate);
            Range { low: (rate * 0.85 - error).max(0.0), likely: rate, high: rate * 1.15 + error }
        }
    };
    let set = |volume: f64| workload.working_set.map_or(volume, |w| float(w).min(volume));
    let disks = float(workload.disks);
    let values =
        |volume: f64, rate: f64, link: f64, slack: f64, disks: f64, setup: f64, switch: f64, busy: f64| Values {
            volume,
            rate,
            working_set: set(volume),
            bandwidth: allowed(link, slack),
            link: link.max(1.0),
            disks,
            setup,
            switch,
            busy,
        };
    Corners {
        values: [
            values(volume.low, rate.low, link.high, 1.05, disks * 0.2, SETUP.low, SWITCH.low, 1.0),
            values(volume.likely, rate.likely, link.likely, 1.0, disks, SETUP.likely, SWITCH.likely, 0.6),
            values(volume.high, rate.high, link.low, 0.9, disks * 1.1, SETUP.high, SWITCH.high, 0.15),
        ],
        past_moves: history.moves,
        correction,
    }
}

/// What earlier moves tell.
struct History {
    bandwidth: Option<f64>,
    correction: Option<f64>,
    moves: u32,
}

impl History {
    /// Reads the last moves of a machine. A bandwidth counts only if nothing held it down that does not now: it was seen
    /// under no lower limit.
    fn of(past: &[PastMove], terms: &Terms) -> Self {
        let unlimited = float(terms.limit.map_or(terms.link, |l| l.min(terms.link)));
        let mut rates = Vec::new();
        let mut ratios = Vec::new();
        for one in past {
            let Some(predicted) = one.predicted else { continue };
            let measured = one.measured;
            if measured.bytes == 0 || measured.seconds <= 0.0 {
                continue;
            }
            let rate = float(measured.bytes) / (measured.seconds - SETUP.likely).max(measured.seconds / 4.0);
            // A short move may have sent as fast as the link carries and have spent its time on the rest: it says nothing slower.
            let at_most = float(measured.bytes) / (measured.seconds - SETUP.high).max(0.0);
            let tells = rate >= unlimited || at_most < unlimited;
            if tells && (float(predicted.ceiling) >= unlimited * 0.9 || terms.limit.is_none() && rate > unlimited) {
                rates.push(rate);
            }
            if predicted.bytes.likely > 0 && predicted.convergence != Convergence::Never {
                let factor = if predicted.correction > 0.0 { predicted.correction } else { 1.0 };
                ratios.push(float(measured.bytes) / float(predicted.bytes.likely) * factor);
            }
        }
        let moves = u32::try_from(rates.len().max(ratios.len())).unwrap_or(u32::MAX);
        Self { bandwidth: median(rates), correction: median(ratios).map(|r| r.clamp(0.1, 4.0)), moves }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// New bytes that a guest writes to in a time, slowed down by a part of its CPU time.
fn dirtied(v: &Values, slowed: f64, seconds: f64) -> f64 {
    (v.rate * ((1.0 - slowed) / v.busy).min(1.0) * seconds).min(v.working_set)
}

/// Plays a migration through.
fn run(v: &Values, terms: &Terms) -> Course {
    let seconds = |millis: u64| float(millis) / 1000.0;
    let mut course = Course {
        seconds: v.setup + v.disks / v.bandwidth,
        bytes: v.disks,
        downtime_millis: 0.0,
        passes: 1,
        by_itself: true,
    };
    let (time_up, after) = (seconds(terms.timeout_millis), terms.post_copy_after_millis.map(seconds));
    let (mut left, mut slowed, mut busy) = (v.volume, 0.0_f64, 0);
    loop {
        let takes = left / v.bandwidth;
        let ends = course.seconds + takes;
        let switch = after.filter(|a| *a <= ends && *a <= time_up).or((time_up <= ends).then_some(time_up));
        if let Some(at) = switch {
            let at = at.max(course.seconds);
            let sent = (at - course.seconds) * v.bandwidth;
            // Pages that were sent and written to again, and pages that were not sent yet.
            let rest = (left - sent + dirtied(v, slowed, at - course.seconds)).clamp(0.0, v.volume.max(left));
            let what = if after.is_some_and(|a| a <= at) { WhenUp::PostCopy } else { terms.at_timeout };
            course.seconds = at;
            course.bytes += sent;
            return end(course, what, rest, v, terms);
        }
        course.seconds = ends;
        course.bytes += left;
        let next = dirtied(v, slowed, takes);
        let pause = pause_at(terms, course.seconds);
        if next <= v.bandwidth * pause {
            let stop = next / v.bandwidth.max(v.link);
            course.seconds += stop;
            course.bytes += next;
            course.downtime_millis = v.switch + stop * 1000.0;
            course.passes += 1;
            return course;
        }
        if let Some((initial, more)) = terms.throttle
            && next > left * THROTTLE_AT
        {
            busy += 1;
            if busy >= 2 {
                busy = 0;
                let step = if slowed > 0.0 { f64::from(more) } else { f64::from(initial) };
                slowed = (slowed + step / 100.0).min(0.99);
            }
        }
        if terms.post_copy_passes.is_some_and(|n| course.passes >= n) {
            return end(course, WhenUp::PostCopy, next, v, terms);
        }
        // It moves in a circle: nothing that comes later makes it smaller.
        let stuck = course.passes >= MOST_PASSES;
        if stuck {
            course.seconds = course.seconds.max(time_up.min(1e9));
            return end(course, terms.at_timeout, next, v, terms);
        }
        left = next;
        course.passes += 1;
    }
}

/// A migration that does not end by itself.
fn end(mut course: Course, what: WhenUp, rest: f64, v: &Values, terms: &Terms) -> Course {
    course.by_itself = false;
    match what {
        WhenUp::Abort => {}
        WhenUp::PostCopy => {
            let rate = terms.post_copy_limit.map_or(v.link, |l| v.link.min(float(l))).max(1.0);
            course.seconds += rest / rate;
            course.bytes += rest;
            course.downtime_millis = v.switch;
        }
        WhenUp::Suspend => {
            let takes = rest / v.bandwidth;
            course.seconds += takes;
            course.bytes += rest;
            course.downtime_millis = v.switch + takes * 1000.0;
        }
    }
    course
}

/// The longest pause after so many seconds, in seconds.
fn pause_at(terms: &Terms, seconds: f64) -> f64 {
    let mut pause = float(terms.max_downtime_millis);
    if let Some(raise) = terms.raise {
        let doublings = (seconds * 1000.0 / float(raise.every_millis.max(1))).floor().clamp(0.0, 60.0);
        pause = (pause * doublings.exp2()).min(float(raise.up_to_millis).max(pause));
    }
    pause / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn float(n: u64) -> f64 {
    n as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float-to-int cast saturates, and an estimate is rounded"
)]
fn number(n: f64) -> u64 {
    n.max(0.0).round() as u64
}

/// Milliseconds rounded up to what people write: 350, 1500, 12000.
fn round_up(millis: f64) -> u64 {
    let step = if millis > 10_000.0 {
        1_000.0
    } else if millis > 1_000.0 {
        100.0
    } else {
        50.0
    };
    number((millis / step).ceil() * step)
}

#[cfg(test)]
mod tests;
