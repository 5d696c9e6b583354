//! Commits: settle, save, send, and go on or let go.

use actornot_core::{Commit, Effect, Error, ErrorKind, Updated};

use crate::PostgresQueue;
use crate::row::{self, Answer, Answers};
use crate::slice;
use crate::statements::Verb;

impl PostgresQueue {
    pub(crate) async fn commit_slice(
        &self,
        commits: &[Commit],
    ) -> Result<Vec<Result<Updated, Error>>, Error> {
        // An effect that is not supported refuses its commit before anything is sent.
        let refused: Vec<Option<Error>> = commits.iter().map(refuse).collect();
        let sent: Vec<&Commit> = commits
            .iter()
            .zip(&refused)
            .filter(|(_, refused)| refused.is_none())
            .map(|(commit, _)| commit)
            .collect();
        let mut answers = self.send_commits(&sent).await?.into_iter();
        let answers = refused.into_iter().map(|refused| match refused {
            Some(error) => Err(error),
            None => answers.next().unwrap_or_else(|| Err(unanswered())),
        });
        Ok(answers.collect())
    }

    async fn send_commits(&self, commits: &[&Commit]) -> Result<Vec<Result<Updated, Error>>, Error> {
        if commits.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.server.call(Verb::UpdateLocked, &slice::changes(commits)).await?;
        let Answers { mut of, .. } = row::answers(&rows)?;
        let updated = commits.iter().enumerate().map(|(index, commit)| {
            let answer = of.remove(&index).unwrap_or_default();
            updated(answer).map_err(|error| error.with_entity(&commit.lease.entity))
        });
        Ok(updated.collect())
    }
}

fn refuse(commit: &Commit) -> Option<Error> {
    let unsupported = commit.effects.iter().find_map(|effect| match effect {
        Effect::Send(_) => None,
        Effect::SetTimer { .. } | Effect::CancelTimer { .. } => Some("a timer"),
        Effect::Reply { .. } => Some("a reply"),
        _ => Some("this effect"),
    })?;
    Some(Error::unsupported(unsupported).with_entity(&commit.lease.entity))
}

fn updated(answer: Answer) -> Result<Updated, Error> {
    match answer.part.as_str() {
        "continue" if !answer.messages.is_empty() => Ok(Updated::Continue {
            fence: answer.stored.fence(),
            batch: answer.stored.batch(answer.messages),
        }),
        // Handed out and deleted by hand since: nothing to go on with, and the lease will run out.
        "continue" => Ok(Updated::Released { next_due: None }),
        "released" => Ok(Updated::Released { next_due: answer.stored.next_due() }),
        "lost" => Ok(Updated::LockLost),
        "conflict" => Err(Error::new(
            ErrorKind::Conflict,
            "the acknowledged ids are no prefix of what was handed out, or nothing is left to dead-letter",
        )),
        _ => Err(unanswered()),
    }
}

fn unanswered() -> Error {
    Error::new(
        ErrorKind::UnknownOutcome,
        "the server did not answer for every commit; were the functions changed by hand?",
    )
}
