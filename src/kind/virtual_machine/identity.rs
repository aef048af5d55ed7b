//! stub
use super::VirtualMachineSpec;
use crate::model::Manifest;
use uuid::Uuid;
pub fn uuid(m: &Manifest<VirtualMachineSpec>) -> Uuid {
    m.spec.uuid.unwrap_or_default()
}
pub fn domain_name(m: &Manifest<VirtualMachineSpec>) -> &str {
    m.spec.domain_name.as_deref().unwrap_or(m.name())
}
