//! Tests of the area `lab`.
