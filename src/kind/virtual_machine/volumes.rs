//! stub
use super::VirtualMachineSpec;
use crate::kind::Resources;
use crate::model::{Bytes, Manifest};
pub struct VolumeWish {
    pub disk: String,
    pub pool: String,
    pub pool_manifest: String,
    pub volume: String,
    pub capacity: Option<Bytes>,
    pub stated_size: Option<Bytes>,
    pub format: String,
    pub image: Option<String>,
    pub backing: Option<String>,
    pub path: String,
}
pub fn volumes(_m: &Manifest<VirtualMachineSpec>, _h: &str, _r: &Resources) -> Vec<VolumeWish> {
    vec![]
}
