//! stub
use super::VirtualMachineSpec;
use crate::action::LiveChange;
use crate::domain_xml::Edit;
use crate::finding::Finding;
use crate::kind::Resources;
use crate::model::Manifest;
use crate::observed::*;
use crate::plan::Change;
pub struct Difference {
    pub changes: Vec<Change>,
    pub edits: Vec<Edit>,
    pub live: Vec<(LiveChange, String)>,
    pub restart: Vec<String>,
    pub recreate: Vec<String>,
}
pub fn compare(
    _m: &Manifest<VirtualMachineSpec>,
    _d: &DomainState,
    _h: &HostState,
    _r: &Resources,
    _o: &OwnerMark,
) -> Result<Difference, Finding> {
    Ok(Difference { changes: vec![], edits: vec![], live: vec![], restart: vec![], recreate: vec![] })
}
