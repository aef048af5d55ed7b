//! What the firmware keeps for a machine: UEFI variables and TPM state. A live migration sends both; libvirt takes neither
//! along for a machine that is off, and removes the TPM's with the definition.

use super::paths::{Presence, presence};
use super::{Move, Sheet, devices};
use crate::domain_xml::Element;
use crate::plan::Precheck;

pub(super) fn check(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    tpm(mv, xml, sheet);
    loader(mv, xml, sheet);
    variables(mv, xml, sheet);
    sheet.otherwise(Precheck::Firmware, "it starts with the BIOS that comes with the hypervisor");
}

fn tpm(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    let name = Precheck::Tpm;
    for tpm in devices(xml).filter(|d| d.name == "tpm") {
        let backend = tpm.attribute_at("backend", "type").unwrap_or_default();
        let kept = tpm.get("backend/source").and_then(|s| s.attribute("path"));
        match backend {
            "emulator" if mv.is_live() => sheet.pass(name, "the state of its emulated TPM is sent with its memory"),
            "emulator" if kept.is_some_and(|p| presence(mv, p) == Presence::Shared) => {
                sheet.pass(name, format!("the state of its emulated TPM is on shared storage ({})", kept.unwrap_or_default()));
            }
            "emulator" => sheet.fail(
                name,
                format!(
                    "it moves while it is off, and the state of its emulated TPM stays on `{}`, where libvirt removes it with \
                     the definition",
                    mv.from
                ),
                "start it and move it live: the state is sent then",
            ),
            "passthrough" => sheet.fail(
                name,
                format!("its TPM is a device of `{}`: what is sealed with it cannot be read elsewhere", mv.from),
                "replace it by an emulated one; keys that it holds must be made anew",
            ),
            other => sheet.unknown(name, format!("its TPM is of the type `{other}`, whose state libvirt does not know")),
        }
    }
    sheet.otherwise(name, "it has no TPM");
}

fn loader(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    let Some(loader) = xml.text_at("os/loader").filter(|l| l.starts_with('/')) else { return };
    let name = Precheck::Firmware;
    if mv.destination.firmware.as_ref().is_some_and(|images| images.contains(&loader)) {
        sheet.pass(name, format!("`{}` offers its firmware {loader}", mv.to));
    } else {
        sheet.unknown(name, format!("whether `{}` has its firmware {loader} is not told by libvirt", mv.to));
    }
}

fn variables(mv: &Move<'_>, xml: &Element, sheet: &mut Sheet<'_>) {
    let name = Precheck::Firmware;
    let Some(file) = xml.get("os/nvram") else { return };
    // A volume or network disk for them is the same for both hosts.
    let path = Some(file.text()).filter(|t| t.starts_with('/'));
    let Some(path) = path.or_else(|| file.attribute_at("source", "file").map(str::to_owned)) else { return };
    if mv.is_live() {
        sheet.pass(name, "its UEFI variables are sent with its memory");
    } else if presence(mv, &path) == Presence::Shared {
        sheet.pass(name, format!("its UEFI variables are on shared storage ({path})"));
    } else {
        sheet.fail(
            name,
            format!("it moves while it is off, and its UEFI variables ({path}) stay on `{}`", mv.from),
            "move it live, keep the file on shared storage, or accept new ones with `prechecks: {firmware: Warn}`",
        );
    }
}
