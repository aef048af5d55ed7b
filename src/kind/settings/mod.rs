//! `Settings`: guard rails for the whole repository. At most one.

mod spec;

pub use spec::{Drift, PlacementSettings, Rebalance, SettingsSpec, SyncWindow, Weekday, WindowKind, check_windows};
