//! Tests of the area `render`.
