//! Drover: a GitOps reconciler for machines and workloads that get moved. This is the map of the house.
//!
//! *Ground floor*, values in and values out: no async, no file, no clock, no network.
//! - [`model`]: identities, labels, quantities, secrets, manifests and their places.
//! - [`finding`]: what there is to say, with stable codes.
//! - [`observed`]: what the providers read.
//! - [`domain_xml`]: libvirt's domain XML as a tree.
//! - [`action`]: what can be done, as data.
//! - [`yaml`]: text to values with positions, within limits.
//! - [`kind`]: one folder for each kind: fields, rules, comparison, steps.
//! - [`load`]: text to [`kind::Desired`].
//! - [`plan`]: desired and observed to a plan.
//! - [`render`]: plans and findings as text, Markdown, JSON, SARIF.
//!
//! *First floor*, the outside world behind small traits:
//! - [`source`]: folders, standard input, Git.
//! - [`provider`]: libvirt, Kubernetes and the simulator.
//! - [`journal`]: crashes and history.
//! - [`execute`]: carries a plan out.
//! - [`config`], [`telemetry`]: the operator's configuration, and the log.
//!
//! *Roof*, composition only:
//! - [`pass`]: the core loop. Read it next.
//! - [`daemon`]: when a pass runs.
//! - [`http`]: health, metrics, API, webhook.
//! - [`cli`]: arguments, outputs, exit codes.

pub mod action;
#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod domain_xml;
#[cfg(feature = "runtime")]
pub mod execute;
pub mod finding;
#[cfg(feature = "daemon")]
pub mod http;
#[cfg(feature = "runtime")]
pub mod journal;
pub mod kind;
pub mod load;
pub mod model;
pub mod observed;
#[cfg(feature = "daemon")]
pub mod pass;
pub mod plan;
#[cfg(feature = "runtime")]
pub mod provider;
pub mod render;
#[cfg(feature = "daemon")]
pub mod source;
#[cfg(feature = "daemon")]
pub mod telemetry;
pub mod yaml;
