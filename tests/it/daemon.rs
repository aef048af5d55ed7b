//! Tests of the area `daemon`.
