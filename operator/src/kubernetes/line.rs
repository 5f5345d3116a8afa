//! Those that wait for something that one gets at a time. What a user has declared and regular checks have the turn
//! alternately, so that neither waits for all of the other. Of what is declared, the one that has waited longest and the one
//! that came last have it alternately: what is declared after a thousand others does not wait for them.

use crate::mutex::locked;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::{oneshot, watch};

/// Those that wait.
#[derive(Default)]
pub(crate) struct Line(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Somebody has the turn.
    taken: bool,
    /// What was declared, and not carried out yet, in the order of coming.
    declared: VecDeque<oneshot::Sender<Turn>>,
    /// Regular checks, in the order of coming.
    checks: VecDeque<oneshot::Sender<Turn>>,
    /// How many turns there were.
    turns: usize,
}

/// Why one waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A user declared something, changed it, or deleted it.
    Declared,
    /// What is declared is checked again.
    #[default]
    Check,
}

/// The turn. It ends when this is dropped.
pub(crate) struct Turn(Arc<Mutex<State>>);

/// How many wait, with something that a user has declared, for one that waits in a line.
#[derive(Default)]
pub(crate) struct Behind(watch::Sender<usize>);

/// One of them.
pub(crate) struct OneBehind<'a>(&'a Behind);

impl Behind {
    /// One more waits, until this is dropped.
    pub(crate) fn one(&self) -> OneBehind<'_> {
        self.0.send_modify(|count| *count += 1);
        OneBehind(self)
    }

    async fn any(&self) {
        // The sender is borrowed here.
        let _ = self.0.subscribe().wait_for(|count| *count > 0).await;
    }
}

impl Drop for OneBehind<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

impl Line {
    /// Waits for a turn.
    pub(crate) async fn turn(&self, cause: Cause) -> Turn {
        let turn = {
            let mut state = locked(&self.0);
            if state.taken {
                let (sender, receiver) = oneshot::channel();
                match cause {
                    Cause::Declared => state.declared.push_back(sender),
                    Cause::Check => state.checks.push_back(sender),
                }
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

    /// The same for one behind whom others wait. As soon as what a user has declared is among them, it waits for that.
    pub(crate) async fn turn_before(&self, cause: Cause, behind: &Behind) -> Turn {
        tokio::select! {
            biased;
            turn = self.turn(cause) => return turn,
            () = behind.any(), if cause == Cause::Check => {}
        }
        self.turn(Cause::Declared).await
    }
}

impl State {
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        self.turns = self.turns.wrapping_add(1);
        let check_is_next = self.turns.is_multiple_of(2) || self.declared.is_empty();
        if check_is_next && let Some(check) = self.checks.pop_front() {
            return Some(check);
        }
        // Every second turn of these, where both kinds wait, and where only these do.
        let last_is_next = if self.checks.is_empty() { self.turns.is_multiple_of(2) } else { self.turns % 4 == 3 };
        if last_is_next { self.declared.pop_back() } else { self.declared.pop_front() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = locked(&self.0);
            // Those that wait no longer.
            let State { declared, checks, .. } = &mut *state;
            for waiting in [declared, checks] {
                waiting.retain(|waiting| !waiting.is_closed());
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::LocalBoxFuture;

    fn wait(line: &Line, cause: Cause) -> LocalBoxFuture<'_, Turn> {
        let mut turn = line.turn(cause).boxed_local();
        assert!((&mut turn).now_or_never().is_none());
        turn
    }

    /// In which order they get the turn.
    async fn order(causes: &[Cause]) -> Vec<usize> {
        let line = Line::default();
        let mut turn = line.turn(Cause::Check).await;
        let mut waiting: Vec<_> = causes.iter().map(|cause| wait(&line, *cause)).enumerate().collect();
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
        order
    }

    #[tokio::test]
    async fn of_what_is_declared_the_first_and_the_last_have_the_turn_alternately() {
        assert_eq!(order(&[Cause::Declared; 5]).await, [0, 4, 1, 3, 2]);
    }

    #[tokio::test]
    async fn checks_have_it_in_their_order() {
        assert_eq!(order(&[Cause::Check; 4]).await, [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn what_is_declared_does_not_wait_for_all_checks_nor_the_other_way_round() {
        let (check, declared) = (Cause::Check, Cause::Declared);
        assert_eq!(order(&[check, check, check, declared]).await, [3, 0, 1, 2]);
        assert_eq!(order(&[declared, declared, declared, declared, check, check]).await, [0, 4, 3, 5, 1, 2]);
    }

    #[tokio::test]
    async fn a_check_that_something_declared_waits_for_has_its_turn_as_what_is_declared() {
        let (line, behind) = (Line::default(), Behind::default());
        let turn = line.turn(Cause::Check).await;
        let mut others: Vec<_> = (0..3).map(|_| wait(&line, Cause::Check)).collect();
        let mut check = line.turn_before(Cause::Check, &behind).boxed_local();
        assert!((&mut check).now_or_never().is_none());
        let one = behind.one();
        assert!((&mut check).now_or_never().is_none(), "it waits as what is declared");
        drop(turn);
        let turn = check.now_or_never().expect("it is before the other checks");
        drop((turn, one));
        assert!(others.remove(0).now_or_never().is_some());
        // Nothing waits behind it any more.
        let mut check = line.turn_before(Cause::Check, &behind).boxed_local();
        assert!((&mut check).now_or_never().is_none());
        let order: Vec<bool> = others.into_iter().map(|other| other.now_or_never().is_some()).collect();
        assert_eq!(order, [true, true], "it is behind them");
    }

    #[tokio::test]
    async fn one_that_ceases_to_wait_keeps_no_turn() {
        let line = Line::default();
        let turn = line.turn(Cause::Check).await;
        let (first, second) = (wait(&line, Cause::Check), wait(&line, Cause::Declared));
        drop(first);
        drop(turn);
        let turn = second.await;
        // Given the turn, and dropped before it was looked at.
        let third = wait(&line, Cause::Check);
        drop(turn);
        drop(third);
        assert!(line.turn(Cause::Check).now_or_never().is_some());
    }
}
