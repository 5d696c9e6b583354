//! Any sequence of calls on one entity, against a list that a child could keep.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use actornot_core::{Admission, DeadLetter, EntityId, Grant, Location, NewMessage, Next, Position, Updated};

use crate::lab::{Instance, Lab, MINUTE, delayed, entity, id, message, names};
use crate::verdict::{Check, Scene, scene};

const STEPS: usize = 60;
/// Few enough for duplicates, and for a full backlog.
const NAMES: usize = 40;
const BACKLOG: usize = 12;

pub(crate) async fn a_queue_is_what_its_calls_make_of_it(lab: &Lab) -> Check {
    let scene = scene!(G2, given "posts of several messages, runs that settle some of them, dead letters and redrives", when "they follow each other in any order", usually "a message is found by where it was posted, not by where it stands now");
    let seed = std::env::var("ACTORNOT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(any);
    let mut walk = Walk {
        dice: Dice(seed),
        queue: lab.open().await,
        lab,
        alice: entity("alice"),
        model: Model::default(),
        held: None,
        scene,
        story: vec![format!("ACTORNOT_SEED={seed}")],
    };
    for _ in 0..STEPS {
        walk.step().await.map_err(|mut verdict| {
            verdict.given = format!("{}: {}", verdict.given, walk.story.join(", "));
            verdict
        })?;
    }
    Ok(())
}

fn any() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n.max(1) as u64).unwrap_or(0)
    }
}

/// What should be there.
#[derive(Default)]
struct Model {
    queue: Vec<String>,
    /// With the minute in which each falls due.
    delayed: Vec<(usize, String)>,
    minute: usize,
    known: BTreeSet<String>,
}

impl Model {
    fn post(&mut self, name: &str, minutes: usize) -> Admission {
        if self.known.contains(name) {
            return Admission::Duplicate;
        }
        if self.queue.len() + self.delayed.len() >= BACKLOG {
            return Admission::Full;
        }
        self.known.insert(name.to_owned());
        match minutes {
            0 => self.queue.push(name.to_owned()),
            _ => self.delayed.push((self.minute + minutes, name.to_owned())),
        }
        Admission::Accepted
    }

    fn elapse(&mut self) {
        self.minute += 1;
        self.delayed.sort_by_key(|(at, _)| *at);
        while self.delayed.first().is_some_and(|(at, _)| *at <= self.minute) {
            self.queue.push(self.delayed.remove(0).1);
        }
    }

    fn location(&self, name: &String, letters: &[DeadLetter]) -> Location {
        if self.queue.contains(name) || self.delayed.iter().any(|(_, delayed)| delayed == name) {
            Location::Queued
        } else if letters.iter().any(|letter| letter.id.as_str() == name) {
            Location::Dead
        } else {
            Location::Gone
        }
    }
}

struct Walk<'a> {
    dice: Dice,
    lab: &'a Lab,
    queue: Instance<'a>,
    alice: EntityId,
    model: Model,
    held: Option<Grant>,
    scene: Scene,
    story: Vec<String>,
}

impl Walk<'_> {
    async fn step(&mut self) -> Check {
        match self.dice.below(12) {
            0..5 => self.post().await?,
            5..9 => match self.held.take() {
                Some(grant) => self.settle(grant).await?,
                None => self.lock().await?,
            },
            9 | 10 => self.redrive().await?,
            _ => {
                self.story.push("a minute".to_owned());
                self.lab.elapse(MINUTE).await;
                self.model.elapse();
                // A minute is more than a lease.
                self.held = None;
            }
        }
        self.look().await
    }

    async fn post(&mut self) -> Check {
        let mut all: Vec<NewMessage> = Vec::new();
        let mut expected = Vec::new();
        let minutes = self.dice.below(8).saturating_sub(5);
        for _ in 0..=self.dice.below(5) {
            let name = format!("m{}", self.dice.below(NAMES));
            expected.push(self.model.post(&name, minutes));
            let delay = Duration::from_secs(60 * minutes as u64);
            all.push(if minutes == 0 { message(&name) } else { delayed(&name, delay) });
        }
        let posted: Vec<&str> = all.iter().map(|message| message.id.as_str()).collect();
        self.story.push(format!("post {} in {minutes} min", posted.join(" ")));
        let mut item = self.queue.enqueue(&self.alice, all);
        item.backlog_limit = BACKLOG as u64;
        self.scene.same("the admissions", expected, self.queue.send_item(&item).await?.admissions)
    }

    async fn lock(&mut self) -> Check {
        let most = 1 + self.dice.below(6);
        self.story.push(format!("lock {most}"));
        if self.model.queue.is_empty() {
            return self.scene.same("a grant of nothing", None, self.queue.try_once(&self.alice).await?);
        }
        let grant = self.queue.lock_at_most(&self.alice, u32::try_from(most).unwrap_or(1)).await?;
        self.hand(grant, most)
    }

    /// What is handed out is the head of the queue; how much of it, the queue may decide.
    fn hand(&mut self, grant: Grant, most: usize) -> Check {
        let handed = names(&grant.batch);
        let some = (1..=most).contains(&handed.len());
        self.scene.holds(&format!("one to {most}, from the head"), some, &handed)?;
        let head: Vec<String> = self.model.queue.iter().take(handed.len()).cloned().collect();
        self.scene.same("what is handed out", head, handed)?;
        self.held = Some(grant);
        Ok(())
    }

    async fn settle(&mut self, grant: Grant) -> Check {
        let handed = names(&grant.batch);
        let acked = self.dice.below(handed.len() + 1);
        let buried = acked < handed.len() && self.dice.below(3) == 0;
        let most = self.dice.below(5);
        self.story.push(format!("ack {acked}, {} more die, next {most}", usize::from(buried)));
        let mut draft = self.queue.draft(&grant);
        if buried {
            draft = draft.dead_letter("bad");
        }
        draft.0.acked = grant.batch.ids().into_iter().take(acked).collect();
        draft.0.next = match u32::try_from(most) {
            Ok(max @ 1..) => Next::Batch { max },
            _ => Next::Release,
        };
        let settled = &handed[..acked + usize::from(buried)];
        self.model.queue.retain(|name| !settled.contains(name));
        let updated = self.queue.commit(&draft).await?;
        let go_on = most > 0 && !self.model.queue.is_empty();
        match updated {
            Updated::Continue { fence, batch } if go_on => {
                let mut lease = grant.lease;
                lease.fence = fence;
                self.hand(Grant { lease, batch, state: None }, most)
            }
            other => {
                self.scene.holds("a next batch, or a release", !go_on, &other)?;
                self.scene.holds("a release", matches!(other, Updated::Released { .. }), &other)
            }
        }
    }

    async fn redrive(&mut self) -> Check {
        let letters = self.queue.queue.dead_letters("thing", None, 100).await?;
        if letters.is_empty() {
            return Ok(());
        }
        let letter = &letters[self.dice.below(letters.len())];
        let (to, at) = match self.dice.below(3) {
            0 => (Position::Tail, self.model.queue.len()),
            _ => (Position::Head, 0),
        };
        self.story.push(format!("redrive {} to {to:?}", letter.id));
        self.scene.same("the redrive", true, self.queue.queue.redrive(letter, to).await?)?;
        self.model.queue.insert(at, letter.id.to_string());
        Ok(())
    }

    async fn look(&mut self) -> Check {
        self.scene.same("the queue", self.model.queue.clone(), self.queue.queued(&self.alice).await?)?;
        let some = 1 + self.dice.below(4);
        let peeked = self.queue.queue.peek(&self.alice, u32::try_from(some).unwrap_or(1)).await?;
        let peeked: Vec<String> = peeked.into_iter().map(|message| message.id.to_string()).collect();
        let first: Vec<String> = self.model.queue.iter().take(some).cloned().collect();
        self.scene.same("its first", first, peeked)?;
        let pending = (self.model.queue.len() + self.model.delayed.len()) as u64;
        self.scene.same("how many are pending", pending, self.queue.pending(&self.alice).await?)?;
        let letters = self.queue.queue.dead_letters("thing", None, 100).await?;
        let all: Vec<String> = (0..NAMES).map(|n| format!("m{n}")).collect();
        // All at once, and one alone.
        let asked = all.iter().map(|name| id(name)).collect::<Vec<_>>();
        let expected: Vec<Location> = all.iter().map(|name| self.model.location(name, &letters)).collect();
        let found = self.queue.queue.locate(&self.alice, &asked).await?;
        self.scene.same("where they are", expected.clone(), found)?;
        let one = self.dice.below(all.len());
        let found = self.queue.queue.locate(&self.alice, &asked[one..=one]).await?;
        self.scene.same("where one is", vec![expected[one]], found)
    }
}
