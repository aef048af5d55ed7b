//! stub
use super::VirtualMachineSpec;
use crate::finding::Finding;
use crate::kind::Resources;
use crate::model::Manifest;
use crate::observed::*;
pub fn render(
    _m: &Manifest<VirtualMachineSpec>,
    _h: &HostState,
    _r: &Resources,
    _o: &OwnerMark,
) -> Result<String, Finding> {
    Ok(String::new())
}
