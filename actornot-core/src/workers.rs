//! Who runs: a bounded number of seats, and a first-come-first-served line of entities in front of them, bounded as well:
//! what does not fit in is left to the database, which knows it anyway, and looked for there when the line is short.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The line and the seats. `W` is what waits in line.
#[derive(Debug)]
pub(crate) struct Workers<W> {
    limit: usize,
    room: Mutex<Room<W>>,
    /// Whether somebody sits or waits.
    busy: watch::Sender<bool>,
}

/// For each seat so many stand in line at most. Beyond that the line would only be a copy of what the database has.
const LINE: usize = 160;
/// A line that is shorter than so many for each seat is short.
const SHORT: usize = 4;
/// So many for each seat are looked for when it is.
const FILL: usize = 16;

#[derive(Debug)]
struct Room<W> {
    taken: usize,
    line: VecDeque<W>,
    /// Whether some were left to the database. Whoever comes is then left there too, or they would wait behind everyone
    /// who comes later.
    left: bool,
    /// Whether somebody looks for them.
    filling: bool,
}

/// The right to run entities, one after the other. It must come back by [`Workers::next`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Seat(());

impl<W> Workers<W> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            room: Mutex::new(Room { taken: 0, line: VecDeque::new(), left: false, filling: false }),
            busy: watch::Sender::new(false),
        }
    }

    fn room(&self) -> MutexGuard<'_, Room<W>> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A free seat, if there is one and nobody waits for it.
    pub(crate) fn reserve(&self) -> Option<Seat> {
        let mut room = self.room();
        if room.taken >= self.limit || !room.line.is_empty() {
            return None;
        }
        room.taken += 1;
        self.busy.send_replace(true);
        Some(Seat(()))
    }

    /// Queues up. If a seat is free the caller gets it, and must have somebody sit on it.
    pub(crate) fn line_up(&self, work: W) -> Option<Seat> {
        let mut room = self.room();
        // Whoever has a seat may still be on the way to it, with the line in front of it: a free one is a free one.
        let seat = (room.taken < self.limit).then_some(Seat(()));
        room.taken += usize::from(seat.is_some());
        room.line.push_back(work);
        self.busy.send_replace(true);
        seat
    }

    /// The next in line, or the seat is given back.
    pub(crate) fn next(&self, seat: Seat) -> Option<(W, Seat)> {
        let mut room = self.room();
        match room.line.pop_front() {
            Some(work) => Some((work, seat)),
            None => {
                room.taken -= 1;
                self.busy.send_replace(room.taken > 0);
                None
            }
        }
    }

    /// Whether somebody who comes now is left to the database, and is so.
    pub(crate) fn leaves(&self) -> bool {
        let mut room = self.room();
        room.left |= room.line.len() >= self.limit.saturating_mul(LINE);
        room.left
    }

    /// How many to look for, if some were left, the line is short, and nobody looks: the caller must, and say what came of
    /// it by [`filled`](Self::filled).
    pub(crate) fn fill(&self) -> Option<usize> {
        let mut room = self.room();
        let short = room.line.len() < self.limit.saturating_mul(SHORT);
        if !room.left || !short || std::mem::replace(&mut room.filling, true) {
            return None;
        }
        // Whoever comes from here on may be missed.
        room.left = false;
        Some(self.limit.saturating_mul(FILL))
    }

    /// Whether more were left than were found.
    pub(crate) fn filled(&self, more: bool) {
        let mut room = self.room();
        room.filling = false;
        room.left |= more;
    }

    /// How many seats are free for work that nobody in this process has asked for yet.
    pub(crate) fn free(&self) -> usize {
        let room = self.room();
        self.limit.saturating_sub(room.taken + room.line.len())
    }

    /// How many wait in line.
    pub(crate) fn line(&self) -> usize {
        self.room().line.len()
    }

    /// Completes when nobody sits and nobody waits.
    pub(crate) async fn idle(&self) {
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_line_up_before_the_first_sits_down_get_two_seats() {
        let workers = Workers::new(2);
        let first = workers.line_up(1).unwrap();
        let second = workers.line_up(2).expect("a second seat");
        assert!(workers.line_up(3).is_none());
        let (_, _seat) = workers.next(first).unwrap();
        let (work, seat) = workers.next(second).unwrap();
        assert_eq!((work, workers.next(seat).map(|(work, _)| work)), (2, Some(3)));
    }

    #[test]
    fn a_line_has_an_end_and_who_is_left_is_looked_for_before_anybody_else_joins() {
        let workers = Workers::new(1);
        let mut seat = workers.line_up(0);
        for work in 1..LINE {
            assert!(!workers.leaves(), "{work}");
            assert!(workers.line_up(work).is_none());
        }
        assert!(workers.leaves());
        while workers.line() >= SHORT {
            assert!(workers.leaves() && workers.fill().is_none(), "{} in line", workers.line());
            seat = seat.and_then(|seat| workers.next(seat)).map(|(_, seat)| seat);
        }
        assert_eq!((workers.fill(), workers.fill()), (Some(FILL), None));
        workers.filled(true);
        assert!(workers.leaves());
        assert_eq!(workers.fill(), Some(FILL));
        workers.filled(false);
        assert!(!workers.leaves() && workers.fill().is_none());
    }
}
