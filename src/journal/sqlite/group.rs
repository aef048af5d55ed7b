//! Group commit: records that several threads want written at the same time go to the disk together, and each thread waits
//! until its own is there. One that comes alone is written at once.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where records wait to be written.
#[derive(Debug)]
pub(super) struct Group<R, E>(Mutex<Queue<R, E>>);

#[derive(Debug)]
struct Queue<R, E> {
    waiting: Vec<Waiting<R, E>>,
    /// Whether some thread has the turn to write.
    taken: bool,
}

#[derive(Debug)]
struct Waiting<R, E> {
    record: R,
    call: Sender<Call<E>>,
}

/// What a thread that waits is told.
#[derive(Debug)]
enum Call<E> {
    /// It is its turn: it writes all that waits, its own record among it.
    Turn,
    /// Its record was written, or not.
    Written(Result<(), E>),
}

impl<R, E> Default for Group<R, E> {
    fn default() -> Self {
        Self(Mutex::new(Queue { waiting: Vec::new(), taken: false }))
    }
}

impl<R, E> Group<R, E> {
    /// Has a record written, with what else waits, and returns when it is. `write` is never run by two threads at once; it
    /// takes all records that wait and gives the result of each, in their order. `None`: the thread that had the turn ended
    /// in the middle, and nothing is known of the record.
    pub(super) fn write(&self, record: R, write: impl FnOnce(Vec<R>) -> Vec<Result<(), E>>) -> Option<Result<(), E>> {
        let (call, called) = channel();
        let first = {
            let mut queue = self.queue();
            queue.waiting.push(Waiting { record, call });
            !std::mem::replace(&mut queue.taken, true)
        };
        if !first {
            match called.recv().ok()? {
                Call::Turn => {}
                Call::Written(result) => return Some(result),
            }
        }
        let turn = Turn(self);
        let waiting = std::mem::take(&mut self.queue().waiting);
        let (records, calls): (Vec<R>, Vec<_>) = waiting.into_iter().map(|w| (w.record, w.call)).unzip();
        let results = write(records);
        // The next group begins while this one is told.
        drop(turn);
        for (call, result) in calls.into_iter().zip(results) {
            // A thread that waits cannot be gone.
            let _ = call.send(Call::Written(result));
        }
        match called.recv().ok()? {
            Call::Written(result) => Some(result),
            Call::Turn => None,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<R, E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn to write; passed on when dropped, also by a panic.
struct Turn<'a, R, E>(&'a Group<R, E>);

impl<R, E> Drop for Turn<'_, R, E> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.taken = queue.waiting.first().is_some_and(|next| next.call.send(Call::Turn).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;

    /// Waits until as many records wait.
    fn until_waiting(group: &Group<u32, u32>, records: usize) {
        while group.queue().waiting.len() < records {
            thread::yield_now();
        }
    }

    #[test]
    fn what_comes_during_a_write_is_the_next_group_and_each_learns_of_its_own() {
        let group = Group::<u32, u32>::default();
        let sizes = Mutex::new(Vec::new());
        let answer = |records: Vec<u32>| {
            sizes.lock().unwrap().push(records.len());
            records.into_iter().map(|n| if n % 2 == 0 { Ok(()) } else { Err(n) }).collect::<Vec<_>>()
        };
        let begun = Barrier::new(2);
        thread::scope(|scope| {
            let (group, begun, answer) = (&group, &begun, &answer);
            let first = scope.spawn(move || {
                group.write(0, |records| {
                    begun.wait();
                    until_waiting(group, 20);
                    answer(records)
                })
            });
            begun.wait();
            let others: Vec<_> = (1..=20).map(|n| scope.spawn(move || (n, group.write(n, answer)))).collect();
            for other in others {
                let (n, result) = other.join().unwrap();
                assert_eq!(result, Some(if n % 2 == 0 { Ok(()) } else { Err(n) }));
            }
            assert_eq!(first.join().unwrap(), Some(Ok(())));
        });
        assert_eq!(*sizes.lock().unwrap(), [1, 20]);
        assert_eq!(group.write(2, |records| vec![Ok(()); records.len()]), Some(Ok(())), "the turn is free again");
    }

    #[test]
    fn a_thread_that_ends_in_its_turn_holds_up_nobody() {
        let group = Group::<u32, u32>::default();
        let begun = Barrier::new(2);
        thread::scope(|scope| {
            let (group, begun) = (&group, &begun);
            let broken = scope.spawn(move || {
                group.write(0, |_| {
                    begun.wait();
                    until_waiting(group, 1);
                    panic!("as a fault would")
                })
            });
            begun.wait();
            assert_eq!(group.write(1, |records| vec![Ok(()); records.len()]), Some(Ok(())));
            assert!(broken.join().is_err());
        });
    }
}
