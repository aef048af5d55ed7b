//! The operator's configuration: defaults, TOML file, environment, flags, in this order.
