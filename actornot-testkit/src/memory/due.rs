//! What wants a run.

use std::time::Duration;

use actornot_core::{Cursor, Due, DueQuery, EntityId, Waiting};

use super::{At, Bug, Store, kinds};

impl Store {
    pub(super) fn due(&mut self, query: &DueQuery) -> Due {
        let (now, bug) = (self.now(), self.bug);
        let kinds = kinds(query);
        let of_kind = |entity: &EntityId| kinds.contains(entity.kind()) || bug == Some(Bug::DueIgnoresKinds);
        let mut wakes: Vec<(At, EntityId)> = self
            .entities
            .iter()
            .filter(|(entity, _)| of_kind(entity))
            .filter_map(|(entity, row)| Some((row.wake_at(bug)?, entity.clone())))
            .collect();
        wakes.sort();
        let next = wakes.iter().map(|(at, _)| *at).find(|at| *at > now).map(|at| at - now);
        let behind = |(at, entity): &(At, EntityId)| match &query.after {
            Some(cursor) if bug != Some(Bug::DueCursorIgnored) => {
                format!("{:020}:{entity}", at.as_nanos()) > cursor.0
            }
            _ => true,
        };
        let due: Vec<_> = wakes.into_iter().filter(|(at, _)| *at <= now).filter(behind).collect();
        let page = &due[..due.len().min(query.limit as usize)];
        if bug == Some(Bug::DueClaims) {
            for (_, entity) in page {
                let until = now + Duration::from_secs(30);
                if let Some(row) = self.entities.get_mut(entity) {
                    row.wait = Some((Waiting::Backoff, until));
                }
            }
        }
        let after = (due.len() > page.len())
            .then(|| page.last().map(|(at, entity)| Cursor(format!("{:020}:{entity}", at.as_nanos()))))
            .flatten();
        Due {
            entities: page.iter().map(|(_, entity)| entity.clone()).collect(),
            next: if bug == Some(Bug::DueNextForgotten) { None } else { next },
            after,
        }
    }
}
