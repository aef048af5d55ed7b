//! A guest's CPU as libvirt writes it: model, vendor, features.

use super::tree::{self, Element};
use std::collections::BTreeMap;

/// What a `<cpu>` element says of the CPU itself; topology, caches and cells are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestCpu {
    /// The named model.
    pub model: String,
    /// The maker, where it is given.
    pub vendor: Option<String>,
    /// Features beyond those of the model, and what is done about each: `require`, `disable`, ….
    pub features: BTreeMap<String, String>,
}

/// Reads a `<cpu>` element; `None` where it is not XML or names no model.
pub fn guest_cpu(xml: &str) -> Option<GuestCpu> {
    let cpu = tree::parse(xml).ok().filter(|e| e.name == "cpu")?;
    Some(GuestCpu {
        model: cpu.text_at("model").filter(|m| !m.is_empty())?,
        vendor: cpu.text_at("vendor").filter(|v| !v.is_empty()),
        features: cpu
            .all("feature")
            .filter_map(|f| {
                Some((f.attribute("name")?.to_owned(), f.attribute("policy").unwrap_or("require").to_owned()))
            })
            .collect(),
    })
}

impl GuestCpu {
    /// The element for a definition: this CPU and no other (`match='exact'`), and never another one in its place.
    pub fn element(&self) -> Element {
        let mut cpu = Element::new("cpu").with("mode", "custom").with("match", "exact");
        cpu = cpu.child(Element::new("model").with("fallback", "forbid").text_of(&self.model));
        if let Some(vendor) = &self.vendor {
            cpu = cpu.child(Element::new("vendor").text_of(vendor));
        }
        for (name, policy) in &self.features {
            cpu = cpu.child(Element::new("feature").with("policy", policy).with("name", name));
        }
        cpu
    }

    /// Features that are asked for beyond the model's.
    pub fn required(&self) -> impl Iterator<Item = &str> {
        self.features.iter().filter(|(_, p)| matches!(p.as_str(), "require" | "force")).map(|(n, _)| n.as_str())
    }

    /// Features of the model that are not there.
    pub fn disabled(&self) -> impl Iterator<Item = &str> {
        self.features.iter().filter(|(_, p)| matches!(p.as_str(), "disable" | "forbid")).map(|(n, _)| n.as_str())
    }

    /// What this CPU has and `other`, of the same model, has not. Of another model only its name can be told.
    pub fn beyond(&self, other: &Self) -> Vec<String> {
        let on = |cpu: &Self, name: &str| cpu.features.get(name).map(|p| matches!(p.as_str(), "require" | "force"));
        let mut more = Vec::new();
        for name in self.required().filter(|name| on(other, name) != Some(true)) {
            more.push(name.to_owned());
        }
        // A feature of the model that the other lacks and this one does not.
        for name in other.disabled().filter(|name| on(self, name) != Some(false) && self.model == other.model) {
            if !more.iter().any(|m| m == name) {
                more.push(name.to_owned());
            }
        }
        more.sort();
        more
    }
}

/// The `<cpu>` element of a definition.
pub fn cpu_of(domain: &str) -> Option<Element> {
    tree::parse(domain).ok()?.get("cpu").cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: &str = "<cpu mode='custom' match='exact'><model fallback='forbid'>EPYC</model><vendor>AMD</vendor>
        <topology sockets='1' cores='1' threads='1'/><feature policy='require' name='pku'/><feature name='clwb'/>
        <feature policy='disable' name='vme'/></cpu>";

    #[test]
    fn a_cpu_is_read_and_written() {
        let cpu = guest_cpu(CPU).unwrap();
        assert_eq!((cpu.model.as_str(), cpu.vendor.as_deref()), ("EPYC", Some("AMD")));
        assert_eq!(cpu.required().collect::<Vec<_>>(), ["clwb", "pku"]);
        assert_eq!(cpu.disabled().collect::<Vec<_>>(), ["vme"]);
        assert_eq!(guest_cpu(&cpu.element().to_xml()), Some(cpu));
        assert_eq!(guest_cpu("<cpu mode='host-passthrough'/>"), None);
        assert_eq!(guest_cpu("<cpu"), None);
        assert_eq!(guest_cpu("<domain><model>x</model></domain>"), None);
    }

    #[test]
    fn what_one_has_beyond_another_is_named() {
        let cpu = guest_cpu(CPU).unwrap();
        let mut less = cpu.clone();
        less.features.remove("pku");
        less.features.insert("misalignsse".into(), "disable".into());
        assert_eq!(cpu.beyond(&less), ["misalignsse", "pku"]);
        assert!(less.beyond(&cpu).is_empty() && cpu.beyond(&cpu).is_empty());
    }
}
