//! Tests of the area `simulation`.
