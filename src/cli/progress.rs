//! Shows what happens while a plan is carried out: bars on a terminal, lines with the time elsewhere.

use crate::execute::Event;
use crate::journal::Outcome;
use crate::plan::Plan;
use crate::render::Paint;
use crate::render::escape::line as terminal;
use crate::render::view::{bytes, migration, millis, seconds};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between the first lines about one step, where lines are written: often enough to see that it goes on, seldom enough
/// for a log of a long migration.
const BETWEEN_LINES: Duration = Duration::from_secs(1);

/// Longest pause between them: it doubles with each line, so that an hour's move is not an hour's scrolling.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Shows progress on standard error.
pub struct Progress {
    state: Mutex<State>,
    paint: Paint,
    bars: Option<MultiProgress>,
}

struct State {
    /// What is done, by step id: `migrating web-1 kvm-a -> kvm-b`.
    labels: HashMap<String, String>,
    total: usize,
    ended: usize,
    /// When a line about a step was written last.
    told: HashMap<String, (Instant, Duration)>,
    running: HashMap<String, ProgressBar>,
}

impl Progress {
    /// For this plan. `bars`: standard error is a terminal.
    pub fn new(plan: &Plan, bars: bool, paint: Paint) -> Self {
        let labels = plan
            .steps
            .iter()
            .map(|s| {
                let label = match migration(s) {
                    Some(m) => format!("migrating {} {} -> {}", m.name, m.from, m.to),
                    None => s.summary.clone(),
                };
                (s.id.clone(), terminal(&label).into_owned())
            })
            .collect();
        let total = plan.steps.iter().filter(|s| !s.is_blocked()).count();
        let state = State { labels, total, ended: 0, told: HashMap::new(), running: HashMap::new() };
        let bars = bars.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Self { state: Mutex::new(state), paint, bars }
    }

    /// Takes an event; called from the executor's threads.
    pub fn event(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (&self.bars, event) {
            (Some(bars), Event::Started { step, .. }) => {
                let bar = bars.add(ProgressBar::new_spinner());
                // The template is ours and constant; if it were wrong the bar would show in the default style.
                if let Ok(style) = ProgressStyle::with_template("  {spinner} {wide_msg} {elapsed}") {
                    bar.set_style(style);
                }
                bar.set_message(state.label(step));
                bar.enable_steady_tick(Duration::from_millis(120));
                state.running.insert(step.clone(), bar);
            }
            (Some(_), Event::Progress { step, progress }) => {
                if let Some(bar) = state.running.get(step) {
                    let fresh = progress.total > 0 && bar.length().is_none();
                    if fresh
                        && let Ok(style) = ProgressStyle::with_template("  {spinner} [{bar:16}] {wide_msg} {elapsed}")
                    {
                        bar.set_style(style.progress_chars("=> "));
                    }
                    if progress.total > 0 {
                        bar.set_length(progress.total);
                        bar.set_position(done(progress));
                    }
                    bar.set_message(format!("{}: {}", state.label(step), figures(progress)));
                }
            }
            _ => {}
        }
        if let Event::Finished { step, .. } = event
            && let Some(bar) = state.running.remove(step)
        {
            bar.finish_and_clear();
        }
        let Some(line) = state.line(event, Instant::now(), self.bars.is_some()) else { return };
        let line = format!("{} {}", clock(Timestamp::now()), self.painted(event, &line));
        match &self.bars {
            Some(bars) => {
                let _ = bars.println(line);
            }
            None => {
                // Nobody reading the progress is no reason to stop.
                let _ = writeln!(io::stderr(), "{line}");
            }
        }
    }

    /// Says something between the lines or above the bars.
    pub fn note(&self, text: &str) {
        match &self.bars {
            Some(bars) => {
                let _ = bars.println(text);
            }
            None => {
                let _ = writeln!(io::stderr(), "{text}");
            }
        }
    }

    /// Takes what is drawn off the terminal.
    pub fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, bar) in state.running.drain() {
            bar.finish_and_clear();
        }
    }

    fn painted(&self, event: &Event, line: &str) -> String {
        match event {
            Event::Finished { outcome: Outcome::Done | Outcome::AlreadyDone, .. } => self.paint.green(line),
            Event::Finished { outcome: Outcome::Failed { .. } | Outcome::Refused { .. }, .. } => self.paint.red(line),
            Event::Finished { .. } | Event::Retrying { .. } | Event::Noted { .. } => self.paint.yellow(line),
            _ => line.into(),
        }
        .into_owned()
    }
}

impl State {
    fn label(&self, step: &str) -> String {
        self.labels.get(step).cloned().unwrap_or_else(|| terminal(step).into_owned())
    }

    /// The line for an event, if it is worth one. With bars, what goes on is drawn and only what ended is written.
    fn line(&mut self, event: &Event, now: Instant, bars: bool) -> Option<String> {
        let counted = |state: &Self| format!("[{}/{}]", state.ended, state.total);
        match event {
            Event::Started { step, .. } => {
                if bars {
                    return None;
                }
                self.told.insert(step.clone(), (now, BETWEEN_LINES));
                Some(format!("{} {}", counted(self), self.label(step)))
            }
            Event::Progress { step, progress } => {
                let (last, pause) = self.told.get(step).copied().unwrap_or((now, Duration::ZERO));
                if bars || now.duration_since(last) < pause {
                    return None;
                }
                self.told.insert(step.clone(), (now, (pause * 2).clamp(BETWEEN_LINES, LONGEST_PAUSE)));
                Some(format!("{} {}: {}", counted(self), self.label(step), figures(progress)))
            }
            Event::Noted { step, text, hint } => {
                let label = self.label(step);
                Some(format!("{} {label}: note: {} ({})", counted(self), terminal(text), terminal(hint)))
            }
            Event::Retrying { step, error, after } => Some(format!(
                "{} {}: {}; again in {}",
                counted(self),
                self.label(step),
                terminal(error),
                seconds(after.as_secs_f64())
            )),
            Event::Finished { step, outcome, took } => {
                self.ended += 1;
                self.told.remove(step);
                let took = seconds(took.as_secs_f64());
                let how = match outcome {
                    Outcome::Done => format!("done in {took}"),
                    Outcome::AlreadyDone => "nothing to do any more".into(),
                    Outcome::Refused { reason } => format!("refused: {}", terminal(reason)),
                    Outcome::Failed { error, .. } => format!("failed after {took}: {}", terminal(error)),
                    Outcome::Interrupted => format!("left after {took}; what goes on is found by the next run"),
                    Outcome::Skipped { reason } => format!("skipped: {}", terminal(reason)),
                };
                Some(format!("{} {}: {how}", counted(self), self.label(step)))
            }
        }
    }
}

pub fn done(progress: &crate::observed::Progress) -> u64 {
    // A guest that writes makes the total grow; what is left is what counts.
    progress.total.saturating_sub(progress.remaining)
}

/// `45 % 212 MiB of 470 MiB, 180 MiB/s, pass 2, downtime ~120 ms`; what is not known is left out.
pub fn amounts(progress: &crate::observed::Progress) -> String {
    let mut parts = Vec::new();
    if progress.total > 0 {
        let done = done(progress);
        let percent = u128::from(done) * 100 / u128::from(progress.total);
        parts.push(format!("{percent} % {} of {}", bytes(done), bytes(progress.total)));
    }
    if progress.rate > 0 {
        parts.push(format!("{}/s", bytes(progress.rate)));
    }
    if progress.iteration > 0 {
        parts.push(format!("pass {}", progress.iteration));
    }
    if progress.downtime_millis > 0 {
        parts.push(format!("downtime ~{}", millis(progress.downtime_millis)));
    }
    match (progress.phase.is_empty(), parts.is_empty()) {
        (true, true) => seconds(progress.elapsed_millis as f64 / 1000.0),
        (true, false) => parts.join(", "),
        (false, true) => terminal(&progress.phase).into_owned(),
        // The figures say more than `copying memory`; another phase is worth its word.
        (false, false) if progress.phase == "copying memory" => parts.join(", "),
        (false, false) => format!("{}, {}", parts.join(", "), terminal(&progress.phase)),
    }
}

/// The time that is left at the present rate.
pub fn left(progress: &crate::observed::Progress) -> Option<String> {
    if progress.rate == 0 || progress.remaining == 0 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate in seconds")]
    let left = progress.remaining as f64 / progress.rate as f64;
    Some(format!("about {} left", seconds(left)))
}

/// What is known of it, and the time that is left.
pub fn figures(progress: &crate::observed::Progress) -> String {
    match left(progress) {
        Some(left) => format!("{}, {left}", amounts(progress)),
        None => amounts(progress),
    }
}

/// The time of day, in UTC as everywhere in Drover.
fn clock(now: Timestamp) -> String {
    now.to_zoned(TimeZone::UTC).strftime("%H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KindName, ResourceId};

    fn state() -> State {
        let labels = [("s1".to_owned(), "migrating web-1 kvm-a -> kvm-b".to_owned())].into();
        State { labels, total: 3, ended: 1, told: HashMap::new(), running: HashMap::new() }
    }

    fn progress() -> Event {
        let progress = crate::observed::Progress {
            phase: "copying memory".into(),
            processed: 222_298_112,
            remaining: 270_532_608,
            total: 492_830_720,
            rate: 188_743_680,
            iteration: 2,
            completed: false,
            elapsed_millis: 1200,
            downtime_millis: 120,
        };
        Event::Progress { step: "s1".into(), progress }
    }

    #[test]
    fn a_migration_shows_its_figures_in_one_line() {
        let line = state().line(&progress(), Instant::now(), false);
        assert_eq!(
            line.as_deref(),
            Some(
                "[1/3] migrating web-1 kvm-a -> kvm-b: 45 % 212 MiB of 470 MiB, 180 MiB/s, pass 2, downtime ~120 ms, about \
                 1.4 s left"
            )
        );
        // Nothing is promised where nothing flows, or nothing is left.
        for unknown in [(0, 1), (1, 0)] {
            let (rate, remaining) = unknown;
            let progress = crate::observed::Progress { total: 8, rate, remaining, ..Default::default() };
            assert!(!figures(&progress).contains("left"), "{}", figures(&progress));
        }
        let midnight: Timestamp = "2026-11-22T12:00:01Z".parse().unwrap();
        assert_eq!(clock(midnight), "12:00:01");
    }

    #[test]
    fn lines_about_one_step_come_less_and_less_often() {
        let (mut state, start) = (state(), Instant::now());
        let id = ResourceId::new(KindName::new("VirtualMachine"), "web-1");
        let started = Event::Started { step: "s1".into(), resource: id, summary: "x".into() };
        assert!(state.line(&started, start, false).is_some());
        assert_eq!(state.line(&progress(), start + Duration::from_millis(900), false), None);
        assert!(state.line(&progress(), start + Duration::from_millis(1100), false).is_some());
        let hour = (0..3600).filter(|s| state.line(&progress(), start + Duration::from_secs(2 + s), false).is_some());
        assert_eq!(hour.count(), 63, "one a minute after the first few");
    }

    #[test]
    fn an_end_counts_and_says_how_even_where_bars_are_drawn() {
        let mut state = state();
        let outcome = Outcome::Failed { error: "no\u{1b}[31m route".into(), transient: true };
        let ended = Event::Finished { step: "s1".into(), outcome, took: Duration::from_millis(2500) };
        assert_eq!(
            state.line(&ended, Instant::now(), true).as_deref(),
            Some("[2/3] migrating web-1 kvm-a -> kvm-b: failed after 2.5 s: no\\u{1b}[31m route")
        );
    }
}
