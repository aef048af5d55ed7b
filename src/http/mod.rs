//! Health, metrics, API and webhooks over HTTP: reads what the daemon publishes, decides nothing.
