//! What a request is answered when it cannot be served: a status, and why as JSON.

use actornot_core::{Error, ErrorKind};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::http::{StatusCode, header::RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    field: Option<&'static str>,
    message: String,
}

impl Refusal {
    pub(crate) fn invalid(field: &'static str, why: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, field: Some(field), message: format!("{field} {why}") }
    }

    pub(crate) fn unknown(user_id: &str) -> Self {
        let message = format!("nothing was ever posted for user {user_id}");
        Self { status: StatusCode::NOT_FOUND, field: Some("user_id"), message }
    }

    pub(crate) async fn route() -> Self {
        let message = "there are /webhook, /status and /dead-letters".into();
        Self { status: StatusCode::NOT_FOUND, field: None, message }
    }

    pub(crate) async fn method() -> Self {
        let message = "this route does not know the method".into();
        Self { status: StatusCode::METHOD_NOT_ALLOWED, field: None, message }
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self { status: StatusCode::BAD_REQUEST, field: Some("query"), message: rejection.body_text() }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        use ErrorKind::*;
        let status = match error.kind() {
            Invalid { .. } | TooLarge { .. } => StatusCode::BAD_REQUEST,
            BacklogFull { .. } => StatusCode::TOO_MANY_REQUESTS,
            // Closed: this instance is going away, another one is not.
            Unavailable | UnknownOutcome | StorageFull | Closed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            tracing::error!(%error, "a request failed");
        }
        let message = error.to_string();
        // The library says `key` for what this service calls `user_id`.
        match error.kind() {
            Invalid { field: "key" } | TooLarge { field: "key", .. } => {
                let why = message.strip_prefix("key").unwrap_or(&message).trim_start();
                Self::invalid("user_id", why)
            }
            Invalid { field } | TooLarge { field, .. } => Self { status, field: Some(field), message },
            _ => Self { status, field: None, message },
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: Why<'a>,
}

#[derive(Serialize)]
struct Why<'a> {
    field: Option<&'a str>,
    message: &'a str,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(Body { error: Why { field: self.field, message: &self.message } });
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                (self.status, [(RETRY_AFTER, "1")], body).into_response()
            }
            status => (status, body).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: ErrorKind) -> (u16, bool) {
        let response = Refusal::from(Error::new(kind, "x")).into_response();
        (response.status().as_u16(), response.headers().contains_key(RETRY_AFTER))
    }

    #[test]
    fn the_kind_of_an_error_decides_the_status() {
        assert_eq!(answer(ErrorKind::Invalid { field: "id" }), (400, false));
        assert_eq!(answer(ErrorKind::TooLarge { field: "id", size: 2, limit: 1 }), (400, false));
        assert_eq!(answer(ErrorKind::BacklogFull { limit: 1 }), (429, true));
        for kind in [ErrorKind::Unavailable, ErrorKind::UnknownOutcome, ErrorKind::StorageFull] {
            assert_eq!(answer(kind), (503, true));
        }
        for kind in [ErrorKind::Corrupt, ErrorKind::ReadOnly, ErrorKind::Incompatible, ErrorKind::Conflict] {
            assert_eq!(answer(kind), (500, false));
        }
    }
}
