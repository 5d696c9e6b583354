//! Who runs: a bounded number of seats, and a first-come-first-served line of entities in front of them.

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

#[derive(Debug)]
struct Room<W> {
    taken: usize,
    line: VecDeque<W>,
}

/// The right to run entities, one after the other. It must come back by [`Workers::next`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Seat(());

impl<W> Workers<W> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            room: Mutex::new(Room { taken: 0, line: VecDeque::new() }),
            busy: watch::Sender::new(false),
        }
    }

    fn room(&self) -> MutexGuard<'_, Room<W>> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A free seat, if there is one and nobody waits for it.
    pub(crate) fn reserve(&self) -> Option<Seat> {
        self.take(&mut self.room())
    }

    fn take(&self, room: &mut Room<W>) -> Option<Seat> {
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
        let seat = self.take(&mut room);
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

    /// How many seats are free for work that nobody in this process has asked for yet.
    pub(crate) fn free(&self) -> usize {
        let room = self.room();
        self.limit.saturating_sub(room.taken + room.line.len())
    }

    /// Whether somebody waits in line.
    pub(crate) fn has_line(&self) -> bool {
        !self.room().line.is_empty()
    }

    /// Completes when nobody sits and nobody waits.
    pub(crate) async fn idle(&self) {
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
    }
}
