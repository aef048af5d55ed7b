//! libvirt's own test driver: everything but migration, device attachment and storage content, in this process. Its state
//! is shared by the whole test binary, so every test has names of its own.

use super::*;
use drover::action::{DomainXmlEdit, ImageSource, LiveChange};
use drover::domain_xml::{digest, owner_xml};
use drover::observed::{OwnedVolume, OwnerMark, RunState};

const HOST: &str = "test";

fn writer() -> Writer {
    Writer::new(hosts(&[(HOST, "test:///default")]), Options::default())
}

fn reader() -> Reader {
    Reader::new(hosts(&[(HOST, "test:///default"), ("gone", "qemu+tcp://127.0.0.1:1/system")]), Options::default())
}

fn owner(name: &str) -> OwnerMark {
    let volumes = vec![OwnedVolume { pool: "p<&'\"".into(), volume: "v".into() }];
    OwnerMark { fleet: "default".into(), name: name.into(), delete: true, volumes }
}

fn definition(name: &str, uuid: Uuid, mark: Option<&OwnerMark>) -> String {
    let metadata = mark.map(|m| format!("<metadata>{}</metadata>", owner_xml(m))).unwrap_or_default();
    format!(
        "<domain type='test'><name>{name}</name><uuid>{uuid}</uuid>{metadata}<memory unit='KiB'>65536</memory>\
         <vcpu>1</vcpu><os><type>hvm</type></os></domain>"
    )
}

#[tokio::test]
async fn a_host_is_read_completely_and_the_same_twice() {
    let reader = reader();
    let host = observe(&reader, HOST).await;
    assert_eq!((host.driver.as_str(), host.arch.is_empty()), ("TEST", false));
    assert!(host.memory > 0 && host.cpus > 0 && host.domain_types.contains(&"test".to_owned()), "{host:?}");
    assert!(host.libvirt_version.split('.').count() == 3, "{}", host.libvirt_version);
    assert_eq!(host.networks.get("default"), Some(&true));
    assert!(host.pools["default-pool"].active && host.pools["default-pool"].target.is_some());
    let test = host.domains.iter().find(|d| d.name == "test").unwrap();
    assert_eq!((test.state, test.persistent, test.job.is_none()), (RunState::Running, true, true));
    assert!(test.live_xml.is_some() && test.persistent_xml.is_some());
    let again = observe(&reader, HOST).await.domains.into_iter().find(|d| d.name == "test").unwrap();
    assert_eq!(&again, test);
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_unknown_with_a_reason() {
    match reader().observe("gone", Duration::from_secs(10)).await {
        Reading::Unknown { why } => assert!(why.contains("`gone`") && why.contains("127.0.0.1:1"), "{why}"),
        Reading::Present(state) => panic!("{state:?}"),
    }
}

#[tokio::test]
async fn pools_and_volumes_come_and_go() {
    let (writer, host) = (writer(), HOST.to_owned());
    let pool = "pv-pool".to_owned();
    let xml = format!("<pool type='dir'><name>{pool}</name><target><path>/pv/{pool}</path></target></pool>");
    carry_out(
        &writer,
        MachineAction::DefineStoragePool { host: host.clone(), pool: pool.clone(), xml: xml.clone(), autostart: true },
    )
    .await;
    let other = MachineAction::DefineStoragePool {
        host: host.clone(),
        pool: pool.clone(),
        xml: xml.replace("/pv/", "/elsewhere/"),
        autostart: true,
    };
    assert!(refusal(&writer, &other).await.contains("another type, source or target"));
    let volume = |volume: &str, capacity, format: &str, image: Option<&str>| MachineAction::CreateVolume {
        host: host.clone(),
        pool: pool.clone(),
        volume: volume.into(),
        capacity,
        format: format.into(),
        image: image.map(|i| ImageSource { pool: pool.clone(), volume: i.into() }),
        backing: None,
    };
    assert!(refusal(&writer, &volume("a", 1 << 20, "qcow2", None)).await.contains("not started"));
    carry_out(&writer, MachineAction::StartStoragePool { host: host.clone(), pool: pool.clone() }).await;
    carry_out(
        &writer,
        MachineAction::SetStoragePoolAutostart { host: host.clone(), pool: pool.clone(), autostart: false },
    )
    .await;

    carry_out(&writer, volume("a", 1 << 20, "qcow2", None)).await;
    assert!(refusal(&writer, &volume("a", 1 << 20, "raw", None)).await.contains("as qcow2 and not as raw"));
    assert!(refusal(&writer, &volume("a", 2 << 20, "qcow2", None)).await.contains("1048576 bytes"));
    assert!(refusal(&writer, &volume("b", 1 << 19, "qcow2", Some("a"))).await.contains("more than 524288"));
    assert!(refusal(&writer, &volume("b", 1 << 20, "qcow2", Some("nil"))).await.contains("image `nil`"));
    carry_out(&writer, volume("b", 1 << 20, "qcow2", Some("a"))).await;
    let resize = |capacity| MachineAction::ResizeVolume {
        host: host.clone(),
        pool: pool.clone(),
        volume: "a".into(),
        capacity,
        running: None,
    };
    assert_eq!(look(&writer, &resize(1)).await.unwrap(), Look::AlreadyDone, "nothing is ever shrunk");

    let path = observe(&writer, HOST).await.pools[&pool].volumes["a"].path.clone();
    let delete = |path: &str| MachineAction::DeleteVolume {
        host: host.clone(),
        pool: pool.clone(),
        volume: "a".into(),
        path: path.into(),
    };
    assert!(refusal(&writer, &delete("/somewhere/else")).await.contains("when the plan was made"));
    carry_out(&writer, delete(&path)).await;
    assert!(!observe(&writer, HOST).await.pools[&pool].volumes.contains_key("a"));
}

#[tokio::test]
async fn what_a_domain_uses_is_neither_deleted_nor_taken_from_under_it() {
    let (writer, host, pool) = (writer(), HOST.to_owned(), "default-pool".to_owned());
    let volume = "used-1".to_owned();
    carry_out(
        &writer,
        MachineAction::CreateVolume {
            host: host.clone(),
            pool: pool.clone(),
            volume: volume.clone(),
            capacity: 1 << 20,
            format: "raw".into(),
            image: None,
            backing: None,
        },
    )
    .await;
    let path = observe(&writer, HOST).await.pools[&pool].volumes[&volume].path.clone();
    let uuid = Uuid::from_u128(0x0d01);
    let disk =
        format!("<devices><disk type='file'><source file='{path}'/><target dev='vda' bus='virtio'/></disk></devices>");
    let xml = definition("uses-it", uuid, Some(&owner("uses-it"))).replace("</domain>", &format!("{disk}</domain>"));
    carry_out(&writer, MachineAction::DefineDomain { host: host.clone(), name: "uses-it".into(), uuid, xml }).await;
    let delete = MachineAction::DeleteVolume { host: host.clone(), pool: pool.clone(), volume, path };
    assert!(refusal(&writer, &delete).await.contains("in use by `uses-it`"));
    carry_out(&writer, MachineAction::UndefineDomain { host, uuid, nvram: false }).await;
    carry_out(&writer, delete).await;
}

#[tokio::test]
async fn a_machine_lives_and_goes() {
    let (writer, host) = (writer(), HOST.to_owned());
    let (name, uuid) = ("lives", Uuid::from_u128(0x11fe));
    let mark = owner(name);
    let define = MachineAction::DefineDomain {
        host: host.clone(),
        name: name.into(),
        uuid,
        xml: definition(name, uuid, Some(&mark)),
    };
    carry_out(&writer, define).await;
    let seen = domain(&writer, HOST, uuid).await.unwrap();
    assert_eq!((seen.owner.as_ref(), seen.state, seen.live_xml.as_ref()), (Some(&mark), RunState::Off, None));

    // Somebody else's machine of that name, or with that UUID, is in the way.
    let taken = |name: &str, uuid| MachineAction::DefineDomain {
        host: host.clone(),
        name: name.into(),
        uuid,
        xml: definition(name, uuid, Some(&owner("another"))),
    };
    assert!(refusal(&writer, &taken(name, Uuid::from_u128(0xbad))).await.contains("the name `lives` is taken"));
    assert!(refusal(&writer, &taken("another", uuid)).await.contains("taken by domain `lives`"));

    carry_out(&writer, MachineAction::SetAutostart { host: host.clone(), uuid, autostart: true }).await;
    carry_out(&writer, MachineAction::StartDomain { host: host.clone(), uuid, paused: false }).await;
    carry_out(&writer, MachineAction::PauseDomain { host: host.clone(), uuid }).await;
    carry_out(&writer, MachineAction::ResumeDomain { host: host.clone(), uuid }).await;
    let seen = domain(&reader(), HOST, uuid).await.unwrap();
    assert!(seen.autostart && seen.persistent && seen.is_active() && !seen.is_in_migration(), "{seen:?}");

    let undefine = MachineAction::UndefineDomain { host: host.clone(), uuid, nvram: true };
    assert!(refusal(&writer, &undefine).await.contains("only what is off"));
    let rename = |name: &str| MachineAction::RenameDomain { host: host.clone(), uuid, name: name.into() };
    assert!(refusal(&writer, &rename("lives-on")).await.contains("renames only what is off"));

    let other = OwnerMark { delete: false, volumes: vec![], ..mark };
    carry_out(&writer, MachineAction::SetOwner { host: host.clone(), uuid, owner: other.clone() }).await;
    let seen = domain(&writer, HOST, uuid).await.unwrap();
    assert_eq!(seen.owner, Some(other));
    carry_out(&writer, MachineAction::RemoveOwner { host: host.clone(), uuid }).await;
    assert_eq!(domain(&writer, HOST, uuid).await.unwrap().owner, None);

    carry_out(&writer, MachineAction::ShutdownDomain { host: host.clone(), uuid, timeout_millis: 5_000, force: false })
        .await;
    carry_out(&writer, MachineAction::RenameDomain { host: host.clone(), uuid, name: "lives-on".into() }).await;
    carry_out(&writer, undefine).await;
    let start = MachineAction::StartDomain { host, uuid, paused: false };
    assert!(refusal(&writer, &start).await.contains("there is no domain"));
}

#[tokio::test]
async fn a_definition_is_changed_only_from_the_state_that_the_plan_saw() {
    let (writer, host) = (writer(), HOST.to_owned());
    let (name, uuid) = ("changes", Uuid::from_u128(0xc4a2));
    let mark = owner(name);
    let xml = definition(name, uuid, Some(&mark));
    carry_out(&writer, MachineAction::DefineDomain { host: host.clone(), name: name.into(), uuid, xml }).await;
    let before = domain(&writer, HOST, uuid).await.unwrap().persistent_xml.unwrap();
    let update = |expect: &str, text: &str| MachineAction::UpdateDomain {
        host: host.clone(),
        uuid,
        edits: vec![DomainXmlEdit::SetText { at: "/domain/title".into(), text: text.into() }],
        expect: expect.into(),
    };
    assert!(refusal(&writer, &update(&digest("something else"), "x")).await.contains("has changed since"));
    let change = update(&digest(&before), "one <&> two");
    carry_out(&writer, change.clone()).await;
    let after = domain(&writer, HOST, uuid).await.unwrap();
    assert!(after.persistent_xml.as_ref().unwrap().contains("<title>one &lt;&amp;&gt; two</title>"));
    assert_eq!(after.owner, Some(mark));
    // The same change asked of the state before it: done already. Another one: refused.
    assert_eq!(look(&writer, &change).await.unwrap(), Look::AlreadyDone);
    assert!(refusal(&writer, &update(&digest(&before), "three")).await.contains("has changed since"));
    carry_out(&writer, MachineAction::UndefineDomain { host, uuid, nvram: false }).await;
}

#[tokio::test]
async fn a_running_machine_is_changed_without_a_restart() {
    let (writer, host) = (writer(), HOST.to_owned());
    let (name, uuid) = ("live", Uuid::from_u128(0x11f3));
    let xml = definition(name, uuid, Some(&owner(name))).replace("<vcpu>1</vcpu>", "<vcpu current='1'>4</vcpu>");
    carry_out(&writer, MachineAction::DefineDomain { host: host.clone(), name: name.into(), uuid, xml }).await;
    let vcpus = |count| MachineAction::ChangeLive { host: host.clone(), uuid, change: LiveChange::Vcpus { count } };
    assert!(refusal(&writer, &vcpus(3)).await.contains("off"));
    carry_out(&writer, MachineAction::StartDomain { host: host.clone(), uuid, paused: false }).await;
    carry_out(&writer, vcpus(3)).await;
    carry_out(&writer, MachineAction::ShutdownDomain { host: host.clone(), uuid, timeout_millis: 5_000, force: true })
        .await;
    carry_out(&writer, MachineAction::UndefineDomain { host, uuid, nvram: false }).await;
}

#[tokio::test]
async fn what_libvirt_says_no_to_is_told_with_the_host_and_its_words() {
    let (writer, uuid) = (writer(), Uuid::from_u128(0xe44));
    let xml = definition("wrong", uuid, Some(&owner("wrong"))).replace("<vcpu>1", "<no-such-thing/><vcpu>1");
    let define = MachineAction::DefineDomain { host: HOST.into(), name: "wrong".into(), uuid, xml };
    assert_eq!(look(&writer, &define).await.unwrap(), Look::Ready);
    let ctx = step(Duration::from_secs(30)).ctx;
    let error = writer.act(&Action::Machine(define), &ctx).await.unwrap_err();
    assert!(error.message.starts_with("cannot define `wrong` on host `test`: "), "{error}");
    assert!(!error.transient && error.hint.unwrap().contains("schema"), "{}", error.message);
    assert!(domain(&writer, HOST, uuid).await.is_none());
}
