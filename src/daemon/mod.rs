//! When to run a pass: a push, a webhook, a poll, the drift timer, a retry time, a signal.
