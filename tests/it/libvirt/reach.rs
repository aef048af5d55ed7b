//! How hosts are reached: what their servers hold against a client.

use super::moves::in_client;
use super::*;
use crate::lab::Lab;

/// Since 9.8 OpenSSH shuts an address out that connects again and again without logging in. A probe of the port before
/// every connection would be just that.
#[test]
fn an_ssh_server_that_punishes_idle_connections_lets_drover_in_again_and_again() {
    let Some(lab) = Lab::shared() else { return };
    // A configuration without the lab's own leniency: the first value that sshd reads is the one that counts.
    let start = "grep -v PerSourcePenalties /etc/ssh/sshd_config >/run/strict-sshd.conf
        exec /usr/sbin/sshd -f /run/strict-sshd.conf -o PidFile=/run/strict-sshd.pid -o Port=2222 \
          -o 'PerSourcePenalties=noauth:1 min:2 max:60'";
    let started = lab.inside("a", &["sh", "-c", start]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let key = std::fs::read_to_string(lab.known_hosts()).unwrap();
    let key = key.lines().find_map(|l| l.strip_prefix("host-a ")).unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let known = folder.path().join("known_hosts");
    std::fs::write(&known, format!("[10.77.0.1]:2222 {key}\n")).unwrap();
    let options = Options { keyfile: Some(lab.ssh_key()), known_hosts: Some(known), ..Options::default() };
    in_client(&lab, async || {
        // Each has connections of its own, as each run of the program has.
        let uri = [("a", "qemu+ssh://root@10.77.0.1:2222/system")];
        let readers: Vec<_> = (0..12).map(|_| Reader::new(hosts(&uri), options.clone())).collect();
        let readings = readers.iter().map(|r| r.observe("a", Duration::from_secs(30)));
        let shut_out: Vec<_> = futures::future::join_all(readings)
            .await
            .into_iter()
            .filter_map(|r| if let Reading::Unknown { why } = r { Some(why) } else { None })
            .collect();
        assert!(shut_out.is_empty(), "{shut_out:?}");
    });
    lab.inside("a", &["sh", "-c", "kill $(cat /run/strict-sshd.pid)"]);
}
