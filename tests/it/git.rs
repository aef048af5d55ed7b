//! Git against real servers: folders, `git daemon`, git-http-backend behind TLS, and sshd.

#[path = "git/servers.rs"]
pub mod servers;

use drover::daemon::{GitSource, RevisionSource};
use drover::load::Tree;
use drover::model::Secret;
use drover::source::SecretSource;
use drover::source::git::{
    FetchLimits, Fetched, GitAccess, GitError, GitErrorKind, LocalRepository, Mirror, Reference, open_local,
};
use servers::{Client, Https, Origin, Sshd, git, git_daemon, git_with_input};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

fn fetch(client: &Client) -> Result<Fetched, GitError> {
    fetch_ref(client, &Reference::Branch("main".into()))
}

fn fetch_ref(client: &Client, reference: &Reference) -> Result<Fetched, GitError> {
    client.mirror.fetch(reference, &CancellationToken::new())
}

fn content(client: &Client, commit: &str, path: &str) -> String {
    String::from_utf8(client.mirror.tree(commit, "").unwrap().read(path, 1000).unwrap()).unwrap()
}

fn insecure() -> GitAccess {
    GitAccess { allow_insecure: true, ..GitAccess::default() }
}

/// What every server must do: first fetch, nothing new, a push, a rewritten history, a branch that goes and comes back.
fn life_of_a_repository(origin: &Origin, url: &str, access: &GitAccess) {
    let client = Client::new(url, access);
    let first = fetch(&client).unwrap();
    assert_eq!((first.previous.as_ref(), first.rewritten, first.made_anew), (None, false, false));
    assert_eq!(first.commit, git(&origin.bare(), &["rev-parse", "main"]));
    assert_eq!(content(&client, &first.commit, "a.yaml"), "one");
    client.mirror.mark_good(&first.commit).unwrap();

    let again = fetch(&client).unwrap();
    assert_eq!((again.commit.as_str(), again.received_bytes), (first.commit.as_str(), 0));

    let pushed = origin.push("b/c.yaml", "two");
    let second = fetch(&client).unwrap();
    assert_eq!((second.commit.as_str(), second.previous.as_ref()), (pushed.as_str(), Some(&first.commit)));
    assert!(!second.rewritten);
    let changed = client.mirror.changed(&first.commit, &second.commit, "", 10).unwrap();
    assert_eq!(changed.paths.iter().map(|p| p.path.as_str()).collect::<Vec<_>>(), ["b/c.yaml"]);

    let forced = origin.force_push("other");
    let third = fetch(&client).unwrap();
    assert!(third.rewritten && third.commit == forced, "{third:?}");
    assert_eq!(content(&client, &forced, "a.yaml"), "other");

    git(&origin.bare(), &["branch", "-m", "main", "trunk"]);
    let error = fetch(&client).unwrap_err();
    assert_eq!(error.kind, GitErrorKind::NoReference, "{}", error.full());
    assert!(error.full().contains("branch `main`") && error.full().contains("it has trunk"), "{}", error.full());
    // What was in force before can still be read, also what history no longer has.
    assert_eq!(client.mirror.good().as_ref(), Some(&first.commit));
    assert_eq!(content(&client, &first.commit, "a.yaml"), "one");
    git(&origin.bare(), &["branch", "-m", "trunk", "main"]);
    assert_eq!(fetch(&client).unwrap().commit, forced);

    let away = origin.dir.path().join("away.git");
    std::fs::rename(origin.bare(), &away).unwrap();
    let error = fetch(&client).unwrap_err();
    assert_eq!(error.kind, GitErrorKind::NoRepository, "{}", error.full());
    std::fs::rename(&away, origin.bare()).unwrap();
    let back = fetch(&client).unwrap();
    assert!(back.commit == forced && !back.made_anew, "{back:?}");
    assert_eq!(client.mirror.good().as_ref(), Some(&first.commit));
}

#[test]
fn a_folder_is_followed() {
    let origin = Origin::new();
    life_of_a_repository(&origin, origin.bare().to_str().unwrap(), &GitAccess::default());
}

#[test]
fn a_file_url_is_followed() {
    let origin = Origin::new();
    life_of_a_repository(&origin, &format!("file://{}", origin.bare().display()), &GitAccess::default());
}

#[test]
fn a_git_daemon_is_followed_where_the_operator_allows_it() {
    let origin = Origin::new();
    let server = git_daemon(origin.dir.path());
    let url = format!("git://127.0.0.1:{}/fleet.git", server.port);
    let Err(error) = Client::with_limits(&url, &GitAccess::default(), FetchLimits::default()) else {
        panic!("allowed")
    };
    assert!(error.full().contains("git.allow-insecure"), "{}", error.full());
    life_of_a_repository(&origin, &url, &insecure());
}

#[test]
fn an_https_server_is_followed_with_an_authority_of_its_own() {
    let origin = Origin::new();
    let https = Https::start(origin.dir.path());
    life_of_a_repository(&origin, &https.url("fleet.git"), &https.access());
}

#[test]
fn an_ssh_server_is_followed_by_key_and_known_host() {
    let Some(sshd) = Sshd::start() else { return };
    let origin = Origin::new();
    life_of_a_repository(&origin, &sshd.url(&origin.bare()), &sshd.access());
}

#[test]
fn an_unknown_certificate_is_refused() {
    let origin = Origin::new();
    let https = Https::start(origin.dir.path());
    let error = fetch(&Client::new(&https.url("fleet.git"), &GitAccess::default())).unwrap_err();
    assert_eq!(error.kind, GitErrorKind::Certificate, "{}", error.full());
    assert!(error.full().contains("git.ca-file"), "{}", error.full());
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let origin = Origin::new();
    let https = Https::start(origin.dir.path());
    // The certificate names `localhost` and 127.0.0.1.
    let url = https.url("fleet.git").replace("localhost", "127.0.0.2");
    let error = fetch(&Client::new(&url, &https.access())).unwrap_err();
    assert!(matches!(error.kind, GitErrorKind::Certificate | GitErrorKind::Unreachable), "{}", error.full());
}

#[test]
fn a_wrong_token_is_refused_a_new_one_is_used_at_the_next_fetch_and_none_is_shown() {
    let origin = Origin::new();
    let https = Https::start(origin.dir.path());
    https.require("r1ght-t0ken");
    let url = https.url("fleet.git");

    let error = fetch(&Client::new(&url, &https.access())).unwrap_err();
    assert!(error.kind == GitErrorKind::Auth && error.full().contains("DROVER_GIT_TOKEN"), "{}", error.full());

    let file = https.dir.join("mine");
    std::fs::write(&file, "wr0ng-t0ken\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let access = GitAccess { token: Some(SecretSource::File(file.clone())), ..https.access() };
    let client = Client::new(&url, &access);
    let error = fetch(&client).unwrap_err();
    assert_eq!(error.kind, GitErrorKind::Auth, "{}", error.full());
    assert!(!format!("{error:?}").contains("wr0ng"), "{error:?}");

    std::fs::write(&file, "r1ght-t0ken\n").unwrap();
    assert_eq!(content(&client, &fetch(&client).unwrap().commit, "a.yaml"), "one");

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = fetch(&client).unwrap_err();
    assert!(error.full().contains("chmod 600"), "{}", error.full());
    // Nothing of it is on disk.
    let found = Command::new("grep").args(["-rl", "t0ken"]).arg(client.dir.path()).output().unwrap();
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
}

#[test]
fn a_token_is_not_sent_where_anyone_could_read_it() {
    let access = GitAccess { token: Some(SecretSource::Value(Secret::new("t".into()))), ..insecure() };
    let Err(error) = Client::with_limits("http://127.0.0.1/fleet.git", &access, FetchLimits::default()) else {
        panic!("allowed")
    };
    assert_eq!(error.kind, GitErrorKind::Refused);
}

#[test]
fn a_redirect_to_another_host_is_not_followed() {
    let origin = Origin::new();
    let https = Https::start(origin.dir.path());
    let error = fetch(&Client::new(&https.url("redirect/fleet.git"), &https.access())).unwrap_err();
    assert_eq!(error.kind, GitErrorKind::Refused, "{}", error.full());
    assert!(error.full().contains("redirect"), "{}", error.full());
}

#[test]
fn ssh_host_keys_are_checked_against_the_given_file_only() {
    let Some(sshd) = Sshd::start() else { return };
    let origin = Origin::new();
    let url = sshd.url(&origin.bare());
    let result = || fetch(&Client::new(&url, &sshd.access()));

    // Known by its second key only: the client must ask for that one.
    sshd.know("host_ecdsa.pub");
    assert!(result().is_ok());

    // Hashed, as Debian's client writes it.
    let known = sshd.dir.join("known");
    Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&known).output().unwrap();
    assert!(std::fs::read_to_string(&known).unwrap().starts_with("|1|"));
    assert!(result().is_ok());

    std::fs::write(&known, "").unwrap();
    let unknown = result().unwrap_err();
    assert_eq!(unknown.kind, GitErrorKind::HostKey, "{}", unknown.full());
    assert!(unknown.full().contains("ssh-keyscan -p"), "{}", unknown.full());

    sshd.know("stranger.pub");
    let changed = result().unwrap_err();
    assert_eq!(changed.kind, GitErrorKind::HostKey, "{}", changed.full());
    assert!(changed.full().contains("another key (it showed SHA256:"), "{}", changed.full());
    // It was looked at, not changed.
    let stranger = std::fs::read_to_string(sshd.dir.join("stranger.pub")).unwrap();
    assert!(std::fs::read_to_string(&known).unwrap().contains(stranger.trim()));
}

#[test]
fn a_key_that_the_server_does_not_know_is_an_error_about_keys() {
    let Some(sshd) = Sshd::start() else { return };
    let origin = Origin::new();
    let mut access = sshd.access();
    access.ssh.key_file = Some(sshd.dir.join("stranger"));
    let error = fetch(&Client::new(&sshd.url(&origin.bare()), &access)).unwrap_err();
    assert_eq!(error.kind, GitErrorKind::Auth, "{}", error.full());
    let error = fetch(&Client::new(&sshd.url(Path::new("/no/such/repository.git")), &sshd.access())).unwrap_err();
    assert_eq!(error.kind, GitErrorKind::NoRepository, "{}", error.full());
}

#[test]
fn a_server_that_says_nothing_is_left_at_the_deadline_or_when_asked_to() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ssh://git@127.0.0.1:{}/x.git", silent.local_addr().unwrap().port());
    let limits = FetchLimits { timeout: Duration::from_millis(500), ..FetchLimits::default() };
    let client = Client::with_limits(&url, &GitAccess::default(), limits).unwrap();
    let began = Instant::now();
    let error = fetch(&client).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(error.kind, GitErrorKind::Timeout, "{}", error.full());

    let client = Client::new(&url, &GitAccess::default());
    let cancel = CancellationToken::new();
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Accepted by the system and never answered: the client waits for the server's greeting.
            std::thread::sleep(Duration::from_millis(100));
            cancel.cancel();
        });
        let error = client.mirror.fetch(&Reference::Head, &cancel).unwrap_err();
        assert_eq!(error.kind, GitErrorKind::Cancelled, "{}", error.full());
    });
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn nobody_there_is_unreachable() {
    let port = servers::free_port();
    for url in [
        format!("git://127.0.0.1:{port}/x"),
        format!("ssh://127.0.0.1:{port}/x"),
        format!("https://127.0.0.1:{port}/x"),
    ] {
        let error = fetch(&Client::new(&url, &insecure())).unwrap_err();
        assert_eq!(error.kind, GitErrorKind::Unreachable, "{url}: {}", error.full());
    }
}

#[test]
fn a_fetch_that_is_too_large_is_ended_and_the_commit_before_stays() {
    let origin = Origin::new();
    let server = git_daemon(origin.dir.path());
    let url = format!("git://127.0.0.1:{}/fleet.git", server.port);
    let limits = FetchLimits { bytes: 200_000, ..FetchLimits::default() };
    let client = Client::with_limits(&url, &insecure(), limits).unwrap();
    let small = fetch(&client).unwrap();
    // Does not compress.
    let mut state = 1u64;
    let noise: String = (0..2_000_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(33 + u8::try_from((state >> 33) % 90).unwrap())
        })
        .collect();
    origin.push("large.txt", &noise);
    let error = fetch(&client).unwrap_err();
    assert_eq!(error.kind, GitErrorKind::TooLarge, "{}", error.full());
    assert_eq!(content(&client, &small.commit, "a.yaml"), "one");
    git(&origin.work(), &["rm", "-q", "large.txt"]);
    git(&origin.work(), &["reset", "-q", "--soft", &small.commit]);
    git(&origin.work(), &["commit", "-q", "--allow-empty", "-m", "small"]);
    git(&origin.work(), &["push", "-q", "-f", "origin", "HEAD:main"]);
    assert!(fetch(&client).is_ok());
    let left: Vec<_> = std::fs::read_dir(client.mirror.git_dir().join("objects/pack"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| !n.starts_with("pack-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_first_fetch_from_a_server_brings_the_newest_commit_only_and_later_ones_what_came_since() {
    let origin = Origin::new();
    for i in 0..5 {
        origin.push("a.yaml", &format!("{i}"));
    }
    let server = git_daemon(origin.dir.path());
    let url = format!("git://127.0.0.1:{}/fleet.git", server.port);
    let client = Client::new(&url, &insecure());
    let first = fetch(&client).unwrap();
    let count = |commit: &str| git(&client.mirror.git_dir(), &["rev-list", "--count", commit]);
    assert_eq!(count(&first.commit), "1");
    origin.push("a.yaml", "x");
    let newest = origin.push("a.yaml", "y");
    assert_eq!(fetch(&client).unwrap().commit, newest);
    assert_eq!(count(&newest), "3");
    // What `plan --base` may name is fetched when it is asked for.
    assert!(client.mirror.resolve("main~5").is_err());
    client.mirror.fetch_everything(&CancellationToken::new()).unwrap();
    for revision in ["main", "HEAD", "origin/main", newest.as_str()] {
        assert_eq!(client.mirror.resolve(revision).unwrap(), newest, "{revision}");
    }
    assert_eq!(client.mirror.resolve("HEAD~5").unwrap(), git(&origin.bare(), &["rev-parse", "main~5"]));
    assert_eq!(client.mirror.resolve("main~5").unwrap(), git(&origin.bare(), &["rev-parse", "main~5"]));
    let full = FetchLimits { shallow: false, ..FetchLimits::default() };
    let client = Client::with_limits(&url, &insecure(), full).unwrap();
    let all = fetch(&client).unwrap();
    assert_eq!(git(&client.mirror.git_dir(), &["rev-list", "--count", &all.commit]), "8");
}

#[test]
fn an_empty_repository_is_an_error_that_passes_with_the_first_push() {
    let origin = Origin::empty();
    let server = git_daemon(origin.dir.path());
    let remote = format!("git://127.0.0.1:{}/fleet.git", server.port);
    let clients: Vec<Client> =
        [origin.bare().to_str().unwrap(), &remote].map(|url| Client::new(url, &insecure())).into();
    for client in &clients {
        for reference in [Reference::Head, Reference::Branch("main".into())] {
            let error = fetch_ref(client, &reference).unwrap_err();
            assert_eq!(error.kind, GitErrorKind::Empty, "{}", error.full());
        }
    }
    let commit = origin.push("a.yaml", "one");
    for client in &clients {
        assert_eq!(fetch_ref(client, &Reference::Head).unwrap().commit, commit);
    }
}

#[test]
fn tags_the_default_branch_and_single_commits_are_followed() {
    let origin = Origin::new();
    let first = git(&origin.work(), &["rev-parse", "HEAD"]);
    git(&origin.work(), &["tag", "-a", "-m", "release", "v1"]);
    git(&origin.work(), &["push", "-q", "origin", "v1"]);
    let second = origin.push("a.yaml", "two");
    let server = git_daemon(origin.dir.path());
    for url in [origin.bare().display().to_string(), format!("git://127.0.0.1:{}/fleet.git", server.port)] {
        let client = Client::new(&url, &insecure());
        let tag = Reference::Tag("v1".into());
        // An annotated tag leads to its commit.
        assert_eq!(fetch_ref(&client, &tag).unwrap().commit, first);
        assert_eq!(fetch_ref(&client, &tag).unwrap().received_bytes, 0);
        assert_eq!(fetch_ref(&client, &Reference::Head).unwrap().commit, second);
        let by_id = Client::new(&url, &insecure());
        assert_eq!(fetch_ref(&by_id, &Reference::Commit(first.clone())).unwrap().commit, first);
        let error = fetch_ref(&by_id, &Reference::Commit("1".repeat(40))).unwrap_err();
        assert_eq!(error.kind, GitErrorKind::NoReference, "{}", error.full());
        for bad in ["../x", "a..b", "", "x y", "-f"] {
            let error = fetch_ref(&by_id, &Reference::Branch(bad.into())).unwrap_err();
            assert!(matches!(error.kind, GitErrorKind::Refused | GitErrorKind::NoReference), "{bad}: {}", error.full());
        }
    }
    git(&origin.work(), &["tag", "-f", "v1", &second]);
    git(&origin.work(), &["push", "-q", "-f", "origin", "v1"]);
    let client = Client::new(origin.bare().to_str().unwrap(), &insecure());
    assert_eq!(fetch_ref(&client, &Reference::Tag("v1".into())).unwrap().commit, second);
}

fn objects(client: &Client) -> Vec<std::path::PathBuf> {
    fn walk(dir: &Path, all: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            if entry.path().is_dir() { walk(&entry.path(), all) } else { all.push(entry.path()) }
        }
    }
    let mut all = Vec::new();
    walk(&client.mirror.git_dir().join("objects"), &mut all);
    all.retain(|p| p.extension().is_none_or(|e| e == "pack"));
    all
}

/// A mirror that was opened anew, as after a restart.
fn reopened(client: &Client, url: &str) -> Mirror {
    Mirror::open(url, &client.dir.path().join("git"), &GitAccess::default(), FetchLimits::default()).unwrap()
}

#[test]
fn a_mirror_that_was_damaged_is_made_anew_and_keeps_the_commit_in_force() {
    let origin = Origin::new();
    origin.push("b.yaml", &"some text that is long enough to be damaged\n".repeat(20));
    let url = origin.bare().display().to_string();
    let head = || git(&origin.bare(), &["rev-parse", "main"]);
    type Damage<'a> = (&'a str, &'a dyn Fn(&Client));
    let damages: [Damage<'_>; 4] = [
        ("one byte of every object", &|client| {
            for path in objects(client) {
                let mut bytes = std::fs::read(&path).unwrap();
                let at = bytes.len() / 2;
                bytes[at] ^= 0x55;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
                std::fs::write(&path, bytes).unwrap();
            }
        }),
        ("no objects", &|client| std::fs::remove_dir_all(client.mirror.git_dir().join("objects")).unwrap()),
        ("a configuration that cannot be read", &|client| {
            std::fs::write(client.mirror.git_dir().join("config"), "[core\n\0\0").unwrap();
        }),
        ("an empty HEAD and no references", &|client| {
            std::fs::write(client.mirror.git_dir().join("HEAD"), "").unwrap();
            std::fs::remove_dir_all(client.mirror.git_dir().join("refs")).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let client = Client::new(&url, &GitAccess::default());
        let before = fetch(&client).unwrap();
        client.mirror.mark_good(&before.commit).unwrap();
        damage(&client);
        let mirror = reopened(&client, &url);
        let found = mirror.fetch(&Reference::Head, &CancellationToken::new());
        let found = found.unwrap_or_else(|e| panic!("{what}: {}", e.full()));
        assert_eq!(found.commit, head(), "{what}");
        assert!(found.made_anew, "{what}: {found:?}");
        assert!(mirror.tree(&found.commit, "").unwrap().read("b.yaml", 10_000).is_ok(), "{what}");
        assert!(client.dir.path().join("git/mirror.broken").exists(), "{what}");
    }
}

#[test]
fn a_damaged_mirror_stays_as_it_is_while_the_repository_cannot_be_read() {
    let origin = Origin::new();
    let url = origin.bare().display().to_string();
    let client = Client::new(&url, &GitAccess::default());
    let before = fetch(&client).unwrap();
    client.mirror.mark_good(&before.commit).unwrap();
    std::fs::rename(origin.bare(), origin.dir.path().join("away")).unwrap();
    let mirror = reopened(&client, &url);
    assert_eq!(mirror.fetch(&Reference::Head, &CancellationToken::new()).unwrap_err().kind, GitErrorKind::NoRepository);
    assert_eq!(mirror.good(), Some(before.commit.clone()));
    assert!(mirror.tree(&before.commit, "").is_ok());
}

#[test]
fn a_mirror_of_another_repository_is_not_taken_for_this_one() {
    let (one, two) = (Origin::new(), Origin::new());
    two.push("a.yaml", "two");
    let client = Client::new(one.bare().to_str().unwrap(), &GitAccess::default());
    let first = fetch(&client).unwrap();
    client.mirror.mark_good(&first.commit).unwrap();
    let mirror = reopened(&client, two.bare().to_str().unwrap());
    assert_eq!(mirror.good(), None);
    let found = mirror.fetch(&Reference::Head, &CancellationToken::new()).unwrap();
    assert_eq!((found.previous, found.rewritten), (None, false));
}

#[test]
fn a_folder_that_others_can_write_to_is_no_place_for_a_mirror() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let Err(error) = Mirror::open("/srv/x", dir.path(), &GitAccess::default(), FetchLimits::default()) else {
        panic!("opened")
    };
    assert!(error.kind == GitErrorKind::Owner && error.full().contains("chmod 700"), "{}", error.full());
}

#[test]
fn a_tree_made_by_hand_reaches_nobody() {
    let origin = Origin::new();
    let bare = origin.bare();
    let blob = git_with_input(&bare, &["hash-object", "-w", "--stdin"], b"a: 1\n");
    let mut tree = b"100644 ..\0".to_vec();
    tree.extend((0..20).map(|i| u8::from_str_radix(&blob[2 * i..2 * i + 2], 16).unwrap()));
    let tree = git_with_input(&bare, &["hash-object", "-w", "-t", "tree", "--literally", "--stdin"], &tree);
    let commit = git(&bare, &["commit-tree", &tree, "-m", "astray"]);
    git(&bare, &["update-ref", "refs/heads/main", &commit]);
    let server = git_daemon(origin.dir.path());
    for url in [bare.display().to_string(), format!("git://127.0.0.1:{}/fleet.git", server.port)] {
        let client = Client::new(&url, &insecure());
        match fetch(&client) {
            Ok(found) => {
                let error = client.mirror.tree(&found.commit, "").unwrap().list().unwrap_err().to_string();
                assert!(error.contains("leads out of its folder"), "{error}");
            }
            Err(e) => assert!(e.full().contains(".."), "{}", e.full()),
        }
    }
}

#[test]
fn links_in_a_pushed_commit_are_noted_and_not_followed() {
    let origin = Origin::new();
    std::os::unix::fs::symlink("/etc/passwd", origin.work().join("passwd.yaml")).unwrap();
    std::os::unix::fs::symlink("..", origin.work().join("up")).unwrap();
    origin.push("b.yaml", "b");
    let client = Client::new(origin.bare().to_str().unwrap(), &GitAccess::default());
    let commit = fetch(&client).unwrap().commit;
    let tree = client.mirror.tree(&commit, "").unwrap();
    let listing = tree.list().unwrap();
    assert_eq!(listing.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["a.yaml", "b.yaml"]);
    assert_eq!(listing.notes.len(), 2);
    assert!(tree.read("passwd.yaml", 100_000).is_err() && tree.read("up/fleet.git/HEAD", 100).is_err());
}

#[test]
fn a_clone_is_read_in_place_from_any_folder_in_it() {
    let origin = Origin::new();
    let old = git(&origin.work(), &["rev-parse", "HEAD"]);
    let new = origin.push("prod/vm.yaml", "x");
    let local: LocalRepository = open_local(&origin.work().join("prod")).unwrap();
    assert_eq!(local.prefix(), "prod");
    assert_eq!((local.resolve("HEAD~1").unwrap(), local.resolve("main").unwrap()), (old.clone(), new.clone()));
    assert_eq!(local.resolve("origin/main").ok(), git_ok(&origin.work(), "origin/main"));
    assert_eq!(local.tree(&new, "prod").unwrap().list().unwrap().files.len(), 1);
    assert_eq!(local.changed(&old, &new, "", 9).unwrap().paths.len(), 1);
    for bad in ["nothing", "--all", "", "main^{tree}"] {
        let error = local.resolve(bad).unwrap_err();
        assert_eq!(error.kind, GitErrorKind::NoReference, "{bad}: {}", error.full());
    }
    let outside = tempfile::tempdir().unwrap();
    assert_eq!(open_local(outside.path()).unwrap_err().kind, GitErrorKind::NoRepository);
}

fn git_ok(dir: &Path, revision: &str) -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--verify", "-q", revision]).current_dir(dir).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn many_pushes_do_not_pile_up_packs() {
    let origin = Origin::new();
    let client = Client::new(origin.bare().to_str().unwrap(), &GitAccess::default());
    let first = fetch(&client).unwrap();
    client.mirror.mark_good(&first.commit).unwrap();
    let tree = git(&origin.bare(), &["rev-parse", "main^{tree}"]);
    let mut commit = first.commit.clone();
    for i in 0..60 {
        commit = git(&origin.bare(), &["commit-tree", &tree, "-p", &commit, "-m", &i.to_string()]);
        git(&origin.bare(), &["update-ref", "refs/heads/main", &commit]);
        assert_eq!(fetch(&client).unwrap().commit, commit);
    }
    let packs = objects(&client).iter().filter(|p| p.extension().is_some()).count();
    assert!(packs <= 41, "{packs} packs");
    assert_eq!(content(&client, &commit, "a.yaml"), "one");
    assert_eq!(client.mirror.good(), Some(first.commit));
    git(&client.mirror.git_dir(), &["fsck", "--strict"]);
}

#[test]
fn two_fetches_at_once_do_not_disturb_each_other() {
    let origin = Origin::new();
    let url = origin.bare().display().to_string();
    let client = Client::new(&url, &GitAccess::default());
    let other = reopened(&client, &url);
    std::thread::scope(|scope| {
        for mirror in [&client.mirror, &other, &client.mirror] {
            scope.spawn(move || {
                for _ in 0..5 {
                    mirror.fetch(&Reference::Head, &CancellationToken::new()).unwrap();
                }
            });
        }
    });
}

/// Runs itself again as a process whose user has a Git configuration that would send Drover elsewhere.
#[test]
fn the_users_git_configuration_has_no_effect() {
    const CHILD: &str = "DROVER_TEST_GIT_URL";
    if let Ok(url) = std::env::var(CHILD) {
        let client = Client::new(&url, &GitAccess::default());
        println!("fetched {}", fetch(&client).unwrap().commit);
        return;
    }
    let origin = Origin::new();
    let home = tempfile::tempdir().unwrap();
    std::fs::write(
        home.path().join(".gitconfig"),
        format!("[url \"/nowhere\"]\n\tinsteadOf = {}\n[core]\n\thooksPath = /nowhere\n", origin.dir.path().display()),
    )
    .unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "git::the_users_git_configuration_has_no_effect", "--nocapture"])
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .env("GIT_DIR", "/nowhere")
        .env(CHILD, origin.bare())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("fetched "), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_server_that_answers_a_byte_now_and_then_does_not_hold_the_daemon() {
    let origin = Origin::new();
    let https = Https::start(origin.dir.path());
    let limits = FetchLimits { timeout: Duration::from_secs(1), ..FetchLimits::default() };
    let client = Client::with_limits(&https.url("slow/fleet.git"), &https.access(), limits).unwrap();
    let source = GitSource::new(Arc::new(client.mirror), Reference::Head, "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let began = Instant::now();
    let error = runtime.block_on(source.fetch(&CancellationToken::new())).unwrap_err();
    assert_eq!(error.kind, GitErrorKind::Timeout, "{}", error.full());
    // The next one does not pile up behind the first.
    let error = runtime.block_on(source.fetch(&CancellationToken::new())).unwrap_err();
    assert_eq!(error.kind, GitErrorKind::Timeout, "{}", error.full());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    runtime.shutdown_background();
}
