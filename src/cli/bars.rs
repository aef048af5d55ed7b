//! What runs now, one step after the other: with a bar on a terminal, as a plain line elsewhere.

use super::progress;
use crate::daemon::StepStatus;
use crate::observed::Progress;
use crate::render::Paint;
use crate::render::escape::line as terminal;
use crate::render::view::time;
use std::io::{self, Write};

/// Narrowest and widest bar.
const BAR: (usize, usize) = (10, 40);

/// Writes the steps. `width`: of the terminal, where there is one.
pub fn write<'a>(
    out: &mut dyn Write,
    steps: impl Iterator<Item = &'a StepStatus>,
    width: Option<usize>,
    paint: Paint,
) -> io::Result<()> {
    for step in steps {
        let summary = terminal(&step.summary);
        let figures = match (&step.retrying, &step.progress) {
            (Some(error), _) => terminal(&format!("will be tried again after: {error}")).into_owned(),
            (None, Some(progress)) => figures(progress),
            (None, None) => format!("since {}", time(step.started_at)),
        };
        let measured = step.progress.as_ref().filter(|p| p.total > 0 && step.retrying.is_none());
        match (width, measured) {
            (Some(width), Some(progress)) => {
                writeln!(out, "  {summary}")?;
                bar(out, progress, width, paint)?;
            }
            _ => writeln!(out, "  {summary}: {figures}")?,
        }
    }
    Ok(())
}

/// The bar, how much is done, and the time that is left: one below the other for several steps. Further figures stand beside
/// them where there is room, else below.
fn bar(out: &mut dyn Write, progress: &Progress, width: usize, paint: Paint) -> io::Result<()> {
    let drawn = draw(progress, (width / 3).clamp(BAR.0, BAR.1));
    let done = u128::from(progress::done(progress)) * 100 / u128::from(progress.total.max(1));
    let left = progress::left(progress).map_or_else(String::new, |left| format!("  {left}"));
    let amounts = progress::amounts(progress);
    // The percentage stands beside the bar already.
    let amounts = amounts.strip_prefix(&format!("{done} % ")).unwrap_or(&amounts);
    let head = format!("{done:>3} %{left}");
    let painted = paint.cyan(&drawn);
    if 4 + drawn.len() + 1 + head.len() + 2 + amounts.len() <= width {
        return writeln!(out, "    {painted} {head}  {amounts}");
    }
    writeln!(out, "    {painted} {head}")?;
    writeln!(out, "    {amounts}")
}

/// `[=====>     ]`.
fn draw(progress: &Progress, width: usize) -> String {
    let done = u128::from(progress.total.saturating_sub(progress.remaining));
    let filled = done * width as u128 / u128::from(progress.total.max(1));
    let filled = usize::try_from(filled).unwrap_or(width).min(width);
    let head = if filled < width { ">" } else { "" };
    format!("[{}{head}{}]", "=".repeat(filled), " ".repeat((width - filled).saturating_sub(head.len())))
}

/// What is known of it, with the time that is left and the phase.
fn figures(progress: &Progress) -> String {
    let mut text = progress::figures(progress);
    // Left out by `amounts`, because most of the time it is this one.
    if progress.phase == "copying memory" {
        text = format!("{text}, {}", progress.phase);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ResourceId;
    use jiff::Timestamp;

    fn shown(progress: Option<Progress>, width: Option<usize>) -> String {
        let step = StepStatus {
            resource: ResourceId::new("VirtualMachine".into(), "web-1"),
            summary: "live-migrate web-1 from kvm-a to kvm-b".into(),
            started_at: Timestamp::UNIX_EPOCH,
            progress,
            retrying: None,
        };
        let mut out = Vec::new();
        write(&mut out, [&step].into_iter(), width, Paint(false)).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn half_way() -> Progress {
        Progress {
            phase: "copying memory".into(),
            remaining: 256 << 20,
            total: 512 << 20,
            rate: 128 << 20,
            iteration: 2,
            ..Progress::default()
        }
    }

    #[test]
    fn a_bar_stands_beside_the_figures_on_a_terminal() {
        let text = shown(Some(half_way()), Some(60));
        assert_eq!(
            text,
            "  live-migrate web-1 from kvm-a to kvm-b\n    [==========>         ]  50 %  about 2.0 s left\n    \
             256 MiB of 512 MiB, 128 MiB/s, pass 2\n"
        );
        let wide = shown(Some(half_way()), Some(120));
        let bar = "[====================>                   ]";
        assert_eq!(
            wide.lines().nth(1),
            Some(&*format!("    {bar}  50 %  about 2.0 s left  256 MiB of 512 MiB, 128 MiB/s, pass 2"))
        );
        let done = Progress { remaining: 0, ..half_way() };
        assert!(shown(Some(done), Some(60)).contains("[====================] 100 %\n"));
        // No line is broken, however narrow the terminal is.
        for width in [60, 80, 100, 120] {
            assert!(shown(Some(half_way()), Some(width)).lines().all(|l| l.len() <= width), "{width}");
        }
    }

    #[test]
    fn elsewhere_it_is_one_line_and_what_is_not_measured_has_no_bar() {
        let line = shown(Some(half_way()), None);
        assert!(line.lines().count() == 1 && line.contains("kvm-b: 50 % 256 MiB of 512 MiB"), "{line}");
        assert_eq!(shown(None, Some(60)), "  live-migrate web-1 from kvm-a to kvm-b: since 1970-01-01 00:00:00Z\n");
    }
}
