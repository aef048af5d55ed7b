//! Tests of the area `load`.
