//! The core loop: load, observe, plan, gate, execute, report.
