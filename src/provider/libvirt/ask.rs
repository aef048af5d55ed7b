//! Questions beyond a reading: CPUs, firmware, dirty rates. None changes a host, but libvirt answers none over a read-only
//! connection (since CVE-2019-10167 and CVE-2019-10168 CPUs and domain capabilities, because these calls may start an emulator that the caller
//! names, which is never done here; a dirty rate, because it takes the domain's state lock). They go over a full connection
//! that can do nothing else than this.

use super::connect::Host;
use super::error::{During, Fault};
use super::{domain, ffi, xml};
use crate::domain_xml::Element;
use crate::observed::{Answer, CpuFit, DirtyRate, DirtyRateMode, MeasureDirtyRate, Platform, Question};
use std::time::{Duration, Instant};
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt_sys as sys;

/// How often a measurement that should be over is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// What a measurement may take beyond its period. QEMU hashes the sample at its end.
const LATE: Duration = Duration::from_secs(3);

/// Asks a host.
pub(super) async fn ask(host: &Host, question: Question, deadline: Duration) -> Result<Answer, Fault> {
    match question {
        Question::OfferedCpu(platform) => {
            host.call_within("read what CPU it offers", deadline, move |c| offered(c, &platform).map(Answer::Cpu)).await
        }
        Question::Baseline { platform, cpus, expand } => {
            host.call_within("compute a common CPU", deadline, move |c| {
                let what = "compute a common CPU";
                ffi::cpu::baseline(c, &hypervisor(&platform, what)?, &cpus, expand).during(what).map(Answer::Cpu)
            })
            .await
        }
        Question::Compare(platform, cpu) => {
            host.call_within("compare a CPU", deadline, move |c| compare(c, &platform, &cpu).map(Answer::Fit)).await
        }
        Question::Firmware(platform) => {
            let what = "read what firmware it offers";
            host.call_within(what, deadline, move |c| {
                let text = capabilities(c, &platform, what)?;
                Ok(Answer::Firmware(firmware(&xml::parse(&text, what)?)))
            })
            .await
        }
        Question::DirtyRate(wish) => dirty_rate(host, &wish, deadline).await.map(Answer::DirtyRate),
    }
}

fn hypervisor(platform: &Platform, what: &str) -> Result<ffi::cpu::Hypervisor, Fault> {
    let [arch, machine, virt_type] =
        [&platform.arch, &platform.machine, &platform.virt_type].map(|text| text.as_deref());
    ffi::cpu::Hypervisor::new(arch, machine, virt_type).during(what)
}

/// `host-model` of the domain capabilities, as a `<cpu>` element (migration guide, 10.7).
fn offered(connect: &Connect, platform: &Platform) -> Result<String, Fault> {
    let what = "read what CPU it offers";
    let text = capabilities(connect, platform, what)?;
    host_model(&xml::parse(&text, what)?)
        .ok_or_else(|| Fault::odd(what, "its hypervisor offers no `host-model` for this machine type and domain type"))
}

fn capabilities(connect: &Connect, platform: &Platform, what: &str) -> Result<String, Fault> {
    let [arch, machine, virt_type] =
        [&platform.arch, &platform.machine, &platform.virt_type].map(|text| text.as_deref());
    connect.domain_capabilities(None, arch, machine, virt_type, 0).during(what)
}

/// The images that `<os firmware='efi'>` chooses from, as far as the domain capabilities list them.
fn firmware(capabilities: &Element) -> Vec<String> {
    let loader = capabilities.get("os/loader").filter(|l| l.attribute("supported") == Some("yes"));
    loader.into_iter().flat_map(|l| l.all("value")).map(Element::text).collect()
}

fn host_model(capabilities: &Element) -> Option<String> {
    let mode = capabilities.get("cpu")?.all("mode").find(|m| m.attribute("name") == Some("host-model"))?;
    if mode.attribute("supported") != Some("yes") {
        return None;
    }
    let mut cpu = Element::new("cpu");
    cpu.children.clone_from(&mode.children);
    Some(cpu.to_xml())
}

fn compare(connect: &Connect, platform: &Platform, cpu: &str) -> Result<CpuFit, Fault> {
    let what = "compare a CPU";
    match ffi::cpu::compare(connect, &hypervisor(platform, what)?, cpu) {
        Ok(()) => Ok(CpuFit::Fits),
        Err(e) if e.code().to_raw() == sys::VIR_ERR_CPU_INCOMPATIBLE => {
            Ok(CpuFit::Misses { what: e.message().to_owned() })
        }
        // An older libvirt does not know a newer feature: it could not start such a machine either.
        Err(e) if e.message().to_lowercase().contains("unknown cpu") => {
            Ok(CpuFit::Misses { what: e.message().to_owned() })
        }
        Err(e) => Err(e).during(what),
    }
}

fn machine(connect: &Connect, uuid: Uuid) -> Result<Domain, Fault> {
    domain::find(connect, uuid)?
        .ok_or_else(|| Fault::odd("look a machine up", format!("the machine {uuid} is not on it any more")))
}

/// Starts a measurement and waits for its end.
async fn dirty_rate(host: &Host, wish: &MeasureDirtyRate, deadline: Duration) -> Result<DirtyRate, Fault> {
    let what = "measure how fast a machine writes to its memory";
    let (uuid, seconds) = (wish.uuid, wish.seconds.clamp(1, 60));
    let mode = match wish.mode {
        DirtyRateMode::PageSampling => sys::VIR_DOMAIN_DIRTYRATE_MODE_PAGE_SAMPLING,
        DirtyRateMode::DirtyBitmap => sys::VIR_DOMAIN_DIRTYRATE_MODE_DIRTY_BITMAP,
        DirtyRateMode::DirtyRing => sys::VIR_DOMAIN_DIRTYRATE_MODE_DIRTY_RING,
    };
    let period = Duration::from_secs(seconds.into());
    let begun = Instant::now();
    host.call_within(what, deadline, move |c| ffi::dirty::start(&machine(c, uuid)?, period, mode).during(what)).await?;
    let until = deadline.min(period + LATE);
    tokio::time::sleep(period).await;
    loop {
        let left = deadline.saturating_sub(begun.elapsed());
        let numbers = host
            .call_within(what, left, move |c| {
                let which = sys::VIR_DOMAIN_STATS_DIRTYRATE | sys::VIR_DOMAIN_STATS_BALLOON;
                ffi::dirty::stats(&machine(c, uuid)?, which).during(what)
            })
            .await?;
        let number = |name: &str| numbers.get(name).copied();
        let measured = number("dirtyrate.calc_status") == Some(sys::VIR_DOMAIN_DIRTYRATE_MEASURED.into());
        if let (true, Some(mib)) = (measured, number("dirtyrate.megabytes_per_second")) {
            return Ok(DirtyRate {
                // QEMU counts pages and calls 1 MiB a megabyte.
                bytes_per_second: mib << 20,
                seconds,
                resident: number("balloon.rss").map(|kib| kib.saturating_mul(1024)),
            });
        }
        if begun.elapsed() >= until {
            return Err(Fault::odd(what, format!("there is no result after {} s", begun.elapsed().as_secs())));
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_hypervisor_offers_becomes_a_cpu_element() {
        let text = "<domainCapabilities><cpu><mode name='custom' supported='yes'><model>486</model></mode>
            <mode name='host-model' supported='yes'><model fallback='forbid'>EPYC</model><vendor>AMD</vendor>
            <feature policy='require' name='pku'/></mode></cpu></domainCapabilities>";
        let cpu = host_model(&crate::domain_xml::parse(text).unwrap()).unwrap();
        assert_eq!(
            cpu.split_whitespace().collect::<String>(),
            "<cpu><modelfallback='forbid'>EPYC</model><vendor>AMD</vendor><featurepolicy='require'name='pku'/></cpu>"
        );
        let none = text.replace("'host-model' supported='yes'", "'host-model' supported='no'");
        assert_eq!(host_model(&crate::domain_xml::parse(&none).unwrap()), None);
    }

    #[test]
    fn images_are_those_that_the_loader_lists_and_none_where_there_is_no_loader() {
        let text = "<domainCapabilities><os supported='yes'><enum name='firmware'><value>efi</value></enum>
            <loader supported='yes'><value>/fw/code.fd</value><enum name='type'><value>rom</value></enum></loader></os>
            </domainCapabilities>";
        assert_eq!(firmware(&crate::domain_xml::parse(text).unwrap()), ["/fw/code.fd"]);
        let none = text.replace("loader supported='yes'", "loader supported='no'");
        assert_eq!(firmware(&crate::domain_xml::parse(&none).unwrap()), [] as [String; 0]);
    }
}
