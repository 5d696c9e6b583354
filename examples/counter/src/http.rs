//! The routes: from a request to the mailbox and back.

use actornot_core::{DeadLetter, EntityId, Error, MailboxPoster, View};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use crate::domain::{Counter, Increment, Total};
use crate::refusal::Refusal;

type Mailbox = MailboxPoster<Counter>;
/// A query of known names, or why it is none.
type Asked<T> = Result<Query<T>, QueryRejection>;

pub(crate) fn routes(mailbox: Mailbox) -> Router {
    Router::new()
        // By way of `get` a HEAD would count, and whoever sends one expects that nothing happens.
        .route("/webhook", get(webhook).post(webhook).head(Refusal::method))
        .route("/status", get(status))
        .route("/dead-letters", get(dead_letters))
        .fallback(Refusal::route)
        .method_not_allowed_fallback(Refusal::method)
        .with_state(mailbox)
}

/// Text, so that what is no number is refused in our own words.
#[derive(Deserialize)]
struct Hook {
    user_id: Option<String>,
    delta: Option<String>,
    /// The sender's name for this event: counted once, however often it is sent.
    id: Option<String>,
}

async fn webhook(State(mailbox): State<Mailbox>, hook: Asked<Hook>) -> Result<String, Refusal> {
    let Query(Hook { user_id, delta, id }) = hook?;
    let user_id = user_id.ok_or_else(|| Refusal::invalid("user_id", "is missing"))?;
    let delta: i64 = number("delta", delta)?.ok_or_else(|| Refusal::invalid("delta", "is missing"))?;

    let mut post = mailbox.post(&user_id, Increment { delta });
    if let Some(id) = id {
        post = post.id(id);
    }
    let receipt = post.await?;
    Ok(match receipt.is_duplicate() {
        false => format!("Posted increment of {delta} for user {user_id}"),
        true => {
            format!("Duplicate: {} was posted before for user {user_id}, nothing was added", receipt.id())
        }
    })
}

#[derive(Deserialize)]
struct Who {
    user_id: Option<String>,
    after: Option<String>,
    limit: Option<String>,
}

/// One user, or all of them.
#[derive(Serialize)]
#[serde(untagged)]
enum Status {
    One(User),
    Page { users: Vec<Entry>, next: Option<String> },
}

/// A user among others: one whose state does not decode must not hide the rest.
#[derive(Serialize)]
#[serde(untagged)]
enum Entry {
    User(User),
    Unreadable { user_id: String, error: String },
}

#[derive(Serialize)]
struct User {
    user_id: String,
    counter: i64,
    events_pending: u64,
    version: u64,
}

impl User {
    fn new(user_id: String, view: View<Total>) -> Self {
        Self { user_id, counter: view.counter, events_pending: view.pending, version: view.version }
    }
}

async fn status(State(mailbox): State<Mailbox>, who: Asked<Who>) -> Result<Json<Status>, Refusal> {
    let Query(Who { user_id, after, limit }) = who?;
    if let Some(user_id) = user_id {
        let view = mailbox.read(&user_id).await?.ok_or_else(|| Refusal::unknown(&user_id))?;
        return Ok(Json(Status::One(User::new(user_id, view))));
    }
    let limit = page_size(limit)?;
    let page = mailbox.list(after.as_deref(), limit).await?;
    let next = next(&page, limit, |(entity, _)| entity.key().to_owned());
    let entry = |(entity, view): (EntityId, Result<View<Total>, Error>)| {
        let user_id = entity.key().to_owned();
        match view {
            Ok(view) => Entry::User(User::new(user_id, view)),
            Err(error) => Entry::Unreadable { user_id, error: error.to_string() },
        }
    };
    let users = page.into_iter().map(entry).collect();
    Ok(Json(Status::Page { users, next }))
}

#[derive(Deserialize)]
struct Place {
    after: Option<String>,
    limit: Option<String>,
}

#[derive(Serialize)]
struct Letters {
    dead_letters: Vec<Letter>,
    next: Option<u64>,
}

#[derive(Serialize)]
struct Letter {
    number: u64,
    user_id: String,
    id: String,
    /// What was posted, byte for byte.
    payload: String,
    error: String,
    attempts: u32,
}

impl From<DeadLetter> for Letter {
    fn from(letter: DeadLetter) -> Self {
        Self {
            number: letter.number,
            user_id: letter.entity.key().to_owned(),
            id: letter.id.to_string(),
            payload: letter.payload,
            error: letter.error,
            attempts: letter.attempts,
        }
    }
}

async fn dead_letters(State(mailbox): State<Mailbox>, place: Asked<Place>) -> Result<Json<Letters>, Refusal> {
    let Query(Place { after, limit }) = place?;
    let limit = page_size(limit)?;
    let page = mailbox.dead_letters(number("after", after)?, limit).await?;
    let next = next(&page, limit, |letter| letter.number);
    Ok(Json(Letters { dead_letters: page.into_iter().map(Letter::from).collect(), next }))
}

fn number<T: std::str::FromStr>(field: &'static str, text: Option<String>) -> Result<Option<T>, Refusal> {
    let parse = |text: String| {
        text.parse().map_err(|_| Refusal::invalid(field, "is not an integer, or does not fit 64 bits"))
    };
    text.map(parse).transpose()
}

fn page_size(limit: Option<String>) -> Result<u32, Refusal> {
    match number("limit", limit)?.unwrap_or(100) {
        limit @ 1..=1000 => Ok(limit),
        _ => Err(Refusal::invalid("limit", "is not between 1 and 1000")),
    }
}

/// Where the next page begins, if this one is full.
fn next<T, N>(page: &[T], limit: u32, place: impl Fn(&T) -> N) -> Option<N> {
    page.last().filter(|_| page.len() >= limit as usize).map(place)
}
