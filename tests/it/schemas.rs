//! Tests of the area `schemas`.
