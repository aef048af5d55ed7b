//! Lists, page by page. A list is complete or it is none: an error on any page is the error of the whole.

use super::client::{Ask, Connection, escaped};
use super::error::{Fault, FaultKind};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

/// Objects on a page: of the order of client-go's own (500), less for large objects.
const PAGE: usize = 250;
/// Most objects of one list; more is nothing that Drover deals with.
const MOST: usize = 200_000;
/// How often a list is begun anew because its beginning is too old by then (410).
const ANEW: u32 = 3;

/// A page.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Page {
    /// `NamespaceList`: an answer that is something else is no empty list.
    kind: String,
    metadata: PageMetadata,
    /// Also null where there are none.
    items: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMetadata {
    #[serde(rename = "continue")]
    continued: String,
    resource_version: String,
    remaining_item_count: Option<u64>,
}

/// Which objects of a collection.
#[derive(Clone, Debug)]
pub(super) struct Listing<'a> {
    /// In words.
    pub during: &'a str,
    /// The path of the collection.
    pub path: String,
    /// A label selector.
    pub labels: Option<&'a str>,
    /// Whether only the metadata is of interest.
    pub metadata_only: bool,
}

impl Listing<'_> {
    fn target(&self, limit: usize, continued: &str) -> String {
        let mut target = format!("{}?limit={limit}", self.path);
        if let Some(labels) = self.labels {
            target.push_str(&format!("&labelSelector={}", escaped(labels)));
        }
        if !continued.is_empty() {
            target.push_str(&format!("&continue={}", escaped(continued)));
        }
        target
    }

    fn ask(&self, limit: usize, continued: &str) -> Ask<'_> {
        let ask = Ask::get(self.during, self.target(limit, continued));
        if self.metadata_only { ask.metadata_only() } else { ask }
    }

    /// Gives every object to `each` as its page arrives, so that no more than a page of what is not kept is in memory.
    pub async fn each<T>(
        &self,
        connection: &Connection,
        deadline: Instant,
        each: impl Fn(Value) -> Result<Option<T>, Fault>,
    ) -> Result<Vec<T>, Fault> {
        for again in 0.. {
            match self.once(connection, deadline, &each).await {
                Err(fault) if fault.kind == FaultKind::Gone && again < ANEW => {
                    tracing::debug!(cluster = connection.cluster, error = %fault, "the list is begun anew");
                }
                other => return other,
            }
        }
        unreachable!("the loop ends by its number")
    }

    async fn once<T>(
        &self,
        connection: &Connection,
        deadline: Instant,
        each: &impl Fn(Value) -> Result<Option<T>, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let odd = |why: &str| Fault::new(&connection.cluster, self.during, FaultKind::BadAnswer, why);
        let (mut found, mut continued, mut seen) = (Vec::new(), String::new(), 0usize);
        loop {
            let page: Page = connection.ask(self.ask(PAGE, &continued), deadline).await?.value;
            if !page.kind.ends_with("List") {
                return Err(odd("the answer is no list"));
            }
            let items = page.items.unwrap_or_default();
            seen += items.len();
            if seen > MOST {
                return Err(odd(&format!("there are more than {MOST} of them")));
            }
            for item in items {
                found.extend(each(item)?);
            }
            if page.metadata.continued.is_empty() {
                // A server that forgets to say how to go on, but knows that there is more.
                return match page.metadata.remaining_item_count {
                    Some(left) if left > 0 => Err(odd("the list breaks off before its end")),
                    _ => Ok(found),
                };
            }
            if page.metadata.continued == continued {
                return Err(odd("the list does not go on"));
            }
            continued = page.metadata.continued;
        }
    }

    /// How many objects there are, without reading them. None where the server does not say.
    pub async fn count(&self, connection: &Connection, deadline: Instant) -> Result<Option<u64>, Fault> {
        let page: Page = connection.ask(self.ask(1, ""), deadline).await?.value;
        if !page.kind.ends_with("List") {
            return Ok(None);
        }
        let here = page.items.map_or(0, |i| i.len() as u64);
        Ok(match (page.metadata.continued.is_empty(), page.metadata.remaining_item_count) {
            (true, _) => Some(here),
            (false, more) => more.map(|m| m + here),
        })
    }

    /// The version that the collection has now.
    pub async fn version(&self, connection: &Connection, deadline: Instant) -> Result<String, Fault> {
        let page: Page = connection.ask(self.ask(1, ""), deadline).await?.value;
        Ok(page.metadata.resource_version)
    }
}
