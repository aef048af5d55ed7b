//! Tests of the area `libvirt`.
