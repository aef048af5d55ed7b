//! Set-up of tracing: human-readable on a terminal, JSON with `--log-format json`.
