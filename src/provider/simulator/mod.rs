//! Hosts in memory: deterministic, with injectable latency and failures.
