//! What a process takes: CPU time, wall time, largest memory.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What one process and its children took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// User and system time, in seconds.
    pub cpu: f64,
    /// Seconds.
    pub wall: f64,
    /// The largest resident memory of one process, in MiB.
    pub mib: f64,
}

/// A program to be measured.
#[derive(Clone, Debug)]
pub struct Job {
    program: PathBuf,
    args: Vec<String>,
    folder: Option<PathBuf>,
    exit_codes: Vec<i32>,
}

impl Job {
    pub fn new<S: Into<String>>(program: impl Into<PathBuf>, args: impl IntoIterator<Item = S>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { program: program.into(), args, folder: None, exit_codes: vec![0] }
    }

    /// The program under test.
    pub fn drover<'a>(args: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(env!("CARGO_BIN_EXE_drover"), args)
    }

    /// A case of this program, in a process of its own.
    pub fn case<'a>(name: &'a str, args: impl IntoIterator<Item = &'a str>) -> Self {
        let exe = std::env::current_exe().unwrap();
        Self::new(exe, ["--case", name].into_iter().chain(args))
    }

    /// Runs it there.
    pub fn in_folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Takes these exit codes for a success.
    pub fn may_exit_with(mut self, codes: &[i32]) -> Self {
        self.exit_codes = codes.to_vec();
        self
    }

    /// Runs it once; gives what it took and what it wrote. `None`: it is not installed, or it failed.
    pub fn run(&self) -> Option<(Figures, String)> {
        let record = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("--measure").arg(record.path()).arg(&self.program).args(&self.args);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let output = command.output().unwrap();
        let record = fs::read_to_string(record.path()).unwrap();
        let fields: Vec<f64> = record.split_whitespace().filter_map(|f| f.parse().ok()).collect();
        let &[cpu, wall, mib, code] = fields.as_slice() else { return None };
        if !self.exit_codes.iter().any(|c| f64::from(*c) == code) {
            eprintln!(
                "{} {:?}: {}",
                self.program.display(),
                self.args.first(),
                String::from_utf8_lossy(&output.stderr)
            );
            return None;
        }
        Some((Figures { cpu, wall, mib }, String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// The median of several runs.
    pub fn median(&self, runs: usize) -> Option<Figures> {
        median((0..runs).map(|_| self.run().map(|r| r.0)).collect::<Option<Vec<_>>>()?)
    }
}

/// The run in the middle, by CPU time; with the largest memory of all.
fn median(mut all: Vec<Figures>) -> Option<Figures> {
    all.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    let mib = all.iter().map(|f| f.mib).fold(0.0, f64::max);
    all.get(all.len() / 2).map(|f| Figures { mib, ..*f })
}

/// Runs two programs in turn, so that what else the machine does meets both; gives the medians.
pub fn in_turn(ours: &Job, theirs: &Job, runs: usize) -> Option<(Figures, Figures)> {
    let (mut our, mut their) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        their.push(theirs.run()?.0);
        our.push(ours.run()?.0);
    }
    Some((median(our)?, median(their)?))
}

/// `--measure FILE PROGRAM ARGS…`: runs a program and writes down what it took. In a process of its own, because a child's
/// largest memory is never less than its parent's at the moment of its birth, and the reporting process is not small.
pub fn measure(record: &OsStr, program: &OsStr, args: &[std::ffi::OsString]) {
    let began = Instant::now();
    let Ok(status) = Command::new(program).args(args).status() else { return };
    let wall = began.elapsed().as_secs_f64();
    let used = usage(libc::RUSAGE_CHILDREN);
    let code = status.code().unwrap_or(-1);
    fs::write(record, format!("{} {wall} {} {code}", used.cpu, used.mib)).unwrap();
}

/// CPU time of this process so far, in seconds.
pub fn own_cpu() -> f64 {
    usage(libc::RUSAGE_SELF).cpu
}

#[expect(unsafe_code, reason = "the standard library does not tell what a process used")]
fn usage(who: libc::c_int) -> Figures {
    // SAFETY: a plain structure of numbers, for which all zeros is a value, and a call that fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(who, &raw mut usage), 0);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    Figures { cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime), wall: 0.0, mib: usage.ru_maxrss as f64 / 1024.0 }
}

/// CPU time of another process so far, in seconds; in steps of 10 ms.
pub fn cpu_of(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// A line of a process's status (`VmRSS`, `VmHWM`), in MiB.
pub fn memory_of(pid: u32, line: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}
