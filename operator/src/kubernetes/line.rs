//! A line of those that wait for something that one gets at a time: the one that has waited longest, and the one that came
//! last, in turn. What is declared while a thousand others wait does not wait for all of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Those that wait.
#[derive(Default)]
pub(crate) struct Line(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Somebody has the turn.
    taken: bool,
    /// In the order of coming.
    waiting: VecDeque<oneshot::Sender<Turn>>,
    /// The next turn is that of the last that came.
    last_is_next: bool,
}

/// The turn. It ends when this is dropped.
pub(crate) struct Turn(Arc<Mutex<State>>);

impl Line {
    /// Waits for a turn.
    pub(crate) async fn turn(&self) -> Turn {
        let turn = {
            let mut state = locked(&self.0);
            if state.taken {
                let (sender, receiver) = oneshot::channel();
                state.waiting.push_back(sender);
                Err(receiver)
            } else {
                state.taken = true;
                Ok(Turn(Arc::clone(&self.0)))
            }
        };
        match turn {
            Ok(turn) => turn,
            Err(receiver) => match receiver.await {
                Ok(turn) => turn,
                // The sender is dropped only with the line, which is borrowed here.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl State {
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        self.last_is_next = !self.last_is_next;
        if self.last_is_next { self.waiting.pop_front() } else { self.waiting.pop_back() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = locked(&self.0);
            // Those that wait no longer.
            state.waiting.retain(|waiting| !waiting.is_closed());
            let next = state.next();
            state.taken = next.is_some();
            next
        };
        if let Some(next) = next {
            // To one that has just ceased to wait, it ends there.
            drop(next.send(Turn(Arc::clone(&self.0))));
        }
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::LocalBoxFuture;

    fn wait(line: &Line) -> LocalBoxFuture<'_, Turn> {
        let mut turn = line.turn().boxed_local();
        assert!((&mut turn).now_or_never().is_none());
        turn
    }

    #[tokio::test]
    async fn the_turn_goes_to_the_first_and_to_the_last_alternately() {
        let line = Line::default();
        let mut turn = line.turn().await;
        let mut waiting: Vec<_> = (0..5).map(|number| (number, wait(&line))).collect();
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(turn);
            let mut served = None;
            for (at, (number, waiting)) in waiting.iter_mut().enumerate() {
                if let Some(next) = waiting.now_or_never() {
                    assert!(served.is_none(), "one at a time");
                    served = Some((at, *number, next));
                }
            }
            let (at, number, next) = served.unwrap();
            drop(waiting.remove(at));
            order.push(number);
            turn = next;
        }
        assert_eq!(order, [0, 4, 1, 3, 2]);
    }

    #[tokio::test]
    async fn one_that_ceases_to_wait_keeps_no_turn() {
        let line = Line::default();
        let turn = line.turn().await;
        let (first, second) = (wait(&line), wait(&line));
        drop(first);
        drop(turn);
        let turn = second.await;
        // Given the turn, and dropped before it was looked at.
        let third = wait(&line);
        drop(turn);
        drop(third);
        assert!(line.turn().now_or_never().is_some());
    }
}
