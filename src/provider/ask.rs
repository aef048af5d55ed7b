//! Asks a fleet what manifests ask for, and writes the answers into the observation, where a pure plan finds them.

use super::ReadFleet;
use crate::domain_xml::guest_cpu;
use crate::observed::{
    Answer, Baseline, CompareCpu, CpuBaseline, CpuFit, DirtyRate, HostState, MeasureDirtyRate, Observed, Offer,
    Platform, Question, Questions, Reading,
};
use futures::future::{join, join_all};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a measurement may take beyond its period.
const MARGIN: Duration = Duration::from_secs(10);

impl ReadFleet {
    /// Asks everything at once, each question within `deadline` (a measurement within its period and a margin). What has no
    /// answer is unknown; it makes no host unknown.
    pub async fn ask(&self, questions: Questions, observed: &mut Observed, deadline: Duration) {
        if questions.is_empty() {
            return;
        }
        let baselines = join_all(questions.baselines.into_iter().map(|(hosts, platform)| {
            let observed = &*observed;
            async move {
                let answer = match self.baseline(&hosts, &platform, observed, deadline).await {
                    Ok(found) => Reading::Present(found),
                    Err(why) => Reading::Unknown { why },
                };
                CpuBaseline { hosts, platform, answer }
            }
        }));
        let comparisons = join_all(questions.comparisons.into_iter().map(|q| async move {
            let answer = self.compare(&q, deadline).await;
            (q, answer)
        }));
        let rates = join_all(questions.dirty_rates.into_iter().map(|q| async move {
            let answer = self.dirty_rate(&q).await;
            (q, answer)
        }));
        let images = join_all(questions.firmware.into_iter().map(|(host, platform)| async move {
            let images = match self.one(&host, Question::Firmware(platform), deadline).await {
                Ok(Answer::Firmware(images)) => images,
                Ok(other) => {
                    tracing::warn!("{}", odd(&host, &other));
                    Vec::new()
                }
                Err(why) => {
                    tracing::debug!(host, why, "which firmware it offers is not known");
                    Vec::new()
                }
            };
            (host, images)
        }));
        let ((baselines, images), (comparisons, rates)) = join(join(baselines, images), join(comparisons, rates)).await;
        for (host, images) in images {
            if let Some(Reading::Present(state)) = observed.hosts.get_mut(&host) {
                state.firmware = Some(images);
            }
        }
        observed.cpu_baselines.extend(baselines);
        for (q, answer) in comparisons {
            if let Some(domain) = observed.domain_mut(&q.from, q.uuid) {
                domain.cpu_at.insert(q.to, answer);
            }
        }
        for (q, answer) in rates {
            if let Some(domain) = observed.domain_mut(&q.host, q.uuid) {
                domain.dirty_rate = Some(answer);
            }
        }
    }

    async fn one(&self, host: &str, question: Question, deadline: Duration) -> Result<Answer, String> {
        let Some(observer) = self.by_host.get(host) else { return Err(format!("no Host `{host}` is declared")) };
        tokio::time::timeout(deadline, observer.ask(host, question, deadline))
            .await
            .unwrap_or_else(|_| Err(format!("host `{host}` did not answer within {} s", deadline.as_secs_f64())))
    }

    /// The CPU that all these hosts can give to a guest: what each offers at most is read everywhere, and the host with the
    /// newest libvirt puts it together, because an older one does not know every feature of a newer one.
    async fn baseline(
        &self,
        hosts: &BTreeSet<String>,
        platform: &Platform,
        observed: &Observed,
        deadline: Duration,
    ) -> Result<Baseline, String> {
        let mut states: BTreeMap<&str, &HostState> = BTreeMap::new();
        for host in hosts {
            match observed.hosts.get(host) {
                Some(Reading::Present(state)) => states.insert(host, state),
                Some(Reading::Unknown { why }) => return Err(format!("`{host}` could not be read: {why}")),
                None => return Err(format!("`{host}` was not read")),
            };
        }
        let platform = platform.common(&states)?;
        let asked = join_all(states.keys().map(|host| {
            let platform = platform.clone();
            async move { (*host, self.one(host, Question::OfferedCpu(platform), deadline).await) }
        }));
        let mut offered = BTreeMap::new();
        for (host, answer) in asked.await {
            match answer? {
                Answer::Cpu(cpu) => offered.insert(host.to_owned(), cpu),
                other => return Err(odd(host, &other)),
            };
        }
        // Among equals the first by name, so that equal fleets give equal answers.
        let newest = states.iter().min_by_key(|(name, state)| (Reverse(version(&state.libvirt_version)), **name));
        let Some((computed_on, _)) = newest else { return Err("no host is named".into()) };
        let cpus = offered.values().cloned().collect();
        let question = Question::Baseline { platform: platform.clone(), cpus, expand: false };
        let cpu = match self.one(computed_on, question, deadline).await? {
            Answer::Cpu(cpu) => cpu,
            other => return Err(odd(computed_on, &other)),
        };
        // What a model name stands for only libvirt knows: each CPU by itself, with all that its model has.
        let expanded = join_all(offered.values().map(|cpu| {
            let question = Question::Baseline { platform: platform.clone(), cpus: vec![cpu.clone()], expand: true };
            async move {
                let answer = self.one(computed_on, question, deadline).await;
                let Ok(Answer::Cpu(all)) = answer else { return None };
                Some(guest_cpu(&all)?.required().map(str::to_owned).collect::<BTreeSet<_>>())
            }
        }));
        let features = expanded.await.into_iter().collect::<Option<Vec<_>>>().unwrap_or_default();
        let all: BTreeSet<String> = features.iter().flatten().cloned().collect();
        let hosts = offered.iter().enumerate().map(|(i, (host, cpu))| {
            let lacks = features.get(i).map(|own| all.difference(own).cloned().collect()).unwrap_or_default();
            (host.clone(), Offer { model: guest_cpu(cpu).map(|c| c.model).unwrap_or_default(), lacks })
        });
        Ok(Baseline { cpu, computed_on: (*computed_on).to_owned(), hosts: hosts.collect() })
    }

    async fn compare(&self, q: &CompareCpu, deadline: Duration) -> Reading<CpuFit> {
        match self.one(&q.to, Question::Compare(q.platform.clone(), q.cpu.clone()), deadline).await {
            Ok(Answer::Fit(fit)) => Reading::Present(fit),
            Ok(other) => Reading::Unknown { why: odd(&q.to, &other) },
            Err(why) => Reading::Unknown { why },
        }
    }

    async fn dirty_rate(&self, q: &MeasureDirtyRate) -> Reading<DirtyRate> {
        let deadline = Duration::from_secs(q.seconds.into()) + MARGIN;
        match self.one(&q.host, Question::DirtyRate(q.clone()), deadline).await {
            Ok(Answer::DirtyRate(rate)) => Reading::Present(rate),
            Ok(other) => Reading::Unknown { why: odd(&q.host, &other) },
            Err(why) => Reading::Unknown { why },
        }
    }
}

fn odd(host: &str, answer: &Answer) -> String {
    format!("host `{host}` answered another question: {answer:?}")
}

/// `11.3.0` as numbers, so that 11 comes after 9.
fn version(text: &str) -> Vec<u32> {
    text.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Observer;
    use jiff::Timestamp;
    use std::sync::Arc;

    /// Hosts of two releases, of which one lacks a feature.
    struct Fake {
        silent: bool,
    }

    #[async_trait::async_trait]
    impl Observer for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }

        async fn observe(&self, host: &str, _: Duration) -> Reading<HostState> {
            let version = if host == "new" { "11.3.0" } else { "9.0.0" };
            Reading::Present(HostState {
                arch: "x86_64".into(),
                libvirt_version: version.into(),
                domain_types: if host == "kvm" { vec!["kvm".into(), "qemu".into()] } else { vec!["qemu".into()] },
                ..HostState::default()
            })
        }

        async fn ask(&self, host: &str, question: Question, _: Duration) -> Result<Answer, String> {
            if self.silent && host == "old" {
                std::future::pending::<()>().await;
            }
            match question {
                Question::OfferedCpu(p) => {
                    assert_eq!(p.virt_type.as_deref(), Some("qemu"), "not libvirt's own choice");
                    let pku = if host == "old" { "" } else { "<feature name='pku'/>" };
                    Ok(Answer::Cpu(format!("<cpu><model>{host}</model><feature name='ss'/>{pku}</cpu>")))
                }
                Question::Baseline { cpus, expand, .. } => {
                    assert_eq!(host, "new");
                    assert_eq!(expand, cpus.len() == 1);
                    Ok(Answer::Cpu(cpus.concat()))
                }
                _ => Err("no".into()),
            }
        }
    }

    async fn asked(hosts: &[&str], silent: bool) -> CpuBaseline {
        let fake = Arc::new(Fake { silent });
        let by_host = hosts.iter().map(|h| ((*h).to_owned(), fake.clone() as Arc<dyn Observer>)).collect();
        let fleet = ReadFleet::new(by_host);
        let mut observed = fleet.observe(Timestamp::UNIX_EPOCH, Duration::from_secs(1)).await;
        let hosts = hosts.iter().map(|h| (*h).to_owned()).collect();
        let questions = Questions { baselines: BTreeSet::from([(hosts, Platform::default())]), ..Questions::default() };
        fleet.ask(questions, &mut observed, Duration::from_millis(50)).await;
        observed.cpu_baselines.pop().unwrap()
    }

    #[tokio::test]
    async fn the_host_with_the_newest_libvirt_computes_what_is_common_to_all() {
        let answer = asked(&["kvm", "new", "old"], false).await.answer;
        let Reading::Present(found) = answer else { panic!("{answer:?}") };
        assert_eq!(found.computed_on, "new");
        let lacks: Vec<_> = found.hosts.iter().map(|(h, o)| (h.as_str(), o.lacks.len())).collect();
        assert_eq!(lacks, [("kvm", 0), ("new", 0), ("old", 1)]);
        assert!(found.cpu.contains("kvm") && found.cpu.contains("old"));
    }

    #[tokio::test]
    async fn a_host_that_does_not_answer_leaves_the_whole_unknown() {
        let answer = asked(&["new", "old"], true).await.answer;
        let Reading::Unknown { why } = answer else { panic!("{answer:?}") };
        assert!(why.contains("`old` did not answer"), "{why}");
    }

    #[test]
    fn versions_are_numbers() {
        assert!(version("11.3.0") > version("9.0.0"));
    }
}
