//! From PATH and revision to a tree of files.

use super::args::SourceArgs;
use super::exit::CliError;
use crate::config::Config;
use crate::load::{Limits, Tree};
use crate::model::Revision;
use crate::source::folder::FolderTree;
use crate::source::git::{GitError, GitUrl, LocalRepository, Mirror, open_local};
use crate::source::stdin;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Manifests, and which ones.
pub struct Opened {
    /// The files.
    pub tree: Box<dyn Tree>,
    /// Which state of them.
    pub revision: Revision,
    /// Keeps a fetched repository until nobody reads from it any more.
    _mirror: Option<Scratch>,
}

/// Opens what `args` name.
pub fn open(args: &SourceArgs, config: &Config) -> Result<Opened, CliError> {
    let path = Path::new(&args.path);
    if args.path == "-" {
        if args.rev.is_some() {
            return Err(CliError::usage("standard input has no revisions").hint("leave --rev out"));
        }
        let tree = stdin::read(std::io::stdin().lock(), Limits::default().file_bytes)?;
        return Ok(Opened::new(tree, Revision { path: "-".into(), ..Revision::default() }));
    }
    if path.exists() {
        let Some(rev) = &args.rev else {
            if is_bare_repository(path) {
                return Err(CliError::usage(format!("`{}` is a bare Git repository", args.path))
                    .hint("name the revision to read, such as `--rev HEAD`"));
            }
            let tree = FolderTree::open(path)?;
            return Ok(Opened::new(tree, Revision { path: args.path.clone(), ..Revision::default() }));
        };
        let repository = open_local(path)?;
        return local(&repository, rev, args);
    }
    match GitUrl::parse(&args.path, config.git.allow_insecure) {
        Ok(GitUrl::Local(local)) if !local.exists() => Err(CliError::failed(format!("`{}` is not there", args.path))
            .hint("give a folder, `-` for standard input, or a Git repository or URL with --rev")),
        Ok(_) => remote(args, config),
        Err(error) => Err(error.into()),
    }
}

/// Opens two revisions of one repository: what `base` has, and what `head` has.
pub fn open_two(args: &SourceArgs, base: &str, head: &str, config: &Config) -> Result<(Opened, Opened), CliError> {
    if args.path == "-" {
        return Err(CliError::usage("standard input has no revisions").hint("leave --base and --head out"));
    }
    let at = |rev: &str| SourceArgs { rev: Some(rev.to_owned()), ..args.clone() };
    Ok((open(&at(base), config)?, open(&at(head), config)?))
}

fn local(repository: &LocalRepository, rev: &str, args: &SourceArgs) -> Result<Opened, CliError> {
    let commit = repository.resolve(rev)?;
    let folder = match &args.subdir {
        Some(subdir) if repository.prefix().is_empty() => subdir.clone(),
        Some(subdir) => format!("{}/{subdir}", repository.prefix()),
        None => repository.prefix().to_owned(),
    };
    let tree = repository.tree(&commit, &folder)?;
    Ok(Opened::new(tree, Revision { commit: Some(commit), base: None, path: args.path.clone() }))
}

fn remote(args: &SourceArgs, config: &Config) -> Result<Opened, CliError> {
    let scratch = Scratch::new()?;
    let mut limits = config.fetch;
    // A revision that is not the newest may be asked for.
    limits.shallow = false;
    let mirror = Mirror::open(&args.path, &scratch.0, &config.git, limits)?;
    mirror.fetch_everything(&CancellationToken::new())?;
    let commit = mirror.resolve(args.rev.as_deref().unwrap_or("HEAD"))?;
    let tree = mirror.tree(&commit, args.subdir.as_deref().unwrap_or_default())?;
    let revision = Revision { commit: Some(commit), base: None, path: mirror.url().to_string() };
    Ok(Opened { tree: Box::new(tree), revision, _mirror: Some(scratch) })
}

impl Opened {
    fn new(tree: impl Tree + 'static, revision: Revision) -> Self {
        Self { tree: Box::new(tree), revision, _mirror: None }
    }
}

fn is_bare_repository(path: &Path) -> bool {
    path.join("HEAD").is_file() && path.join("objects").is_dir() && path.join("refs").is_dir()
}

/// A folder that goes away with its last user: a dry run leaves no trace.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self, CliError> {
        use std::os::unix::fs::DirBuilderExt;
        let failed = |path: &Path, error: std::io::Error| {
            CliError::failed(format!("no folder for the repository could be made at `{}`", path.display()))
                .caused_by(error)
        };
        let base = std::env::temp_dir();
        for attempt in 0..64u32 {
            let path = base.join(format!("drover-{}-{attempt}", std::process::id()));
            // `mkdir` fails for anything that is there already, also for a link that somebody put in the way.
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(&path, e)),
            }
        }
        Err(failed(&base, std::io::ErrorKind::AlreadyExists.into()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl From<GitError> for CliError {
    fn from(error: GitError) -> Self {
        let hint = error.hint.clone();
        let this = Self::failed(error.message);
        match hint {
            Some(hint) => this.hint(hint),
            None => this,
        }
    }
}
