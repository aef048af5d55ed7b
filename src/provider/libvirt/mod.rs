//! Hosts reached through libvirt.
