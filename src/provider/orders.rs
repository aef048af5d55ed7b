//! What a newer commit says to steps that are under way.

use crate::action::Order;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Takes orders for running steps, and hands each step its own. The last word counts.
#[derive(Clone, Debug)]
pub struct Orders(Arc<watch::Sender<BTreeMap<String, Order>>>);

impl Default for Orders {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }
}

impl Orders {
    /// Gives orders, by step id. A step that is not named goes on with what it was told last.
    pub fn give(&self, orders: BTreeMap<String, Order>) {
        self.0.send_modify(|known| known.extend(orders));
    }

    /// What one step hears.
    pub fn of(&self, step: &str) -> StepOrders {
        StepOrders { book: Some((self.0.subscribe(), step.to_owned())), last: None }
    }
}

/// The orders of one step.
#[derive(Clone, Debug, Default)]
pub struct StepOrders {
    book: Option<(watch::Receiver<BTreeMap<String, Order>>, String)>,
    last: Option<Order>,
}

impl StepOrders {
    /// The newest order, once.
    pub fn news(&mut self) -> Option<Order> {
        let (book, step) = self.book.as_ref()?;
        let order = book.borrow().get(step).cloned()?;
        (self.last.as_ref() != Some(&order)).then(|| {
            self.last = Some(order.clone());
            order
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_hears_each_order_once_and_only_its_own() {
        let orders = Orders::default();
        let abort = |why: &str| Order::Abort { why: why.into() };
        orders.give([("x".to_owned(), abort("first"))].into());
        let (mut x, mut y) = (orders.of("x"), orders.of("y"));
        assert_eq!((x.news(), x.news(), y.news()), (Some(abort("first")), None, None));
        orders.give([("y".to_owned(), abort("second"))].into());
        assert_eq!((x.news(), y.news()), (None, Some(abort("second"))));
        assert_eq!(StepOrders::default().news(), None);
    }
}
