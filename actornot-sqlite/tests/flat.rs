//! Costs do not grow with what is queued.
#![allow(clippy::unwrap_used)] // Helpers outside test functions.

#[path = "../src/statements.rs"]
#[allow(dead_code, unreachable_pub)]
mod statements;

use actornot_sqlite::SqliteQueue;
use actornot_sqlite::sqlx::sqlite::SqliteConnectOptions;
use actornot_sqlite::sqlx::{self, AssertSqlSafe, ConnectOptions, Row};
use tempfile::TempDir;

#[tokio::test]
async fn no_statement_of_a_verb_scans_a_table() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("test.db");
    SqliteQueue::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    let mut db = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    use statements::*;
    for text in [
        LOAD,
        SAVE,
        PROMOTE,
        MOVED,
        PROMOTED,
        TAILS,
        SEEN,
        REMEMBER,
        RENEW,
        FORGET,
        APPEND,
        DELAY,
        HEAD,
        STATES,
        SAVE_STATES,
        MISSING,
        SETTLE,
        BURY,
        DUE,
        NEXT,
        READ,
        LIST,
        PEEK,
        LOCATE,
        DEAD,
        REVIVE,
        LOOK_FOR,
        REVIVED,
        FIRST,
    ] {
        let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}")))
            .fetch_all(&mut db)
            .await
            .unwrap();
        for step in plan {
            let step: String = step.get("detail");
            let scans = step.starts_with("SCAN") && !step.contains("VIRTUAL TABLE");
            let slice =
                step.starts_with("SCAN j") || step.starts_with("SCAN (") || step.starts_with("SCAN CONSTANT");
            let target = step == "SCAN target" || step == "SCAN slice";
            assert!(!scans || slice || target || indexed(&step), "{step}\nin {text}");
        }
    }
}

/// A search by kind would read, and sort, every entity of the kind to find the first few that are due.
#[tokio::test]
async fn what_is_due_is_found_along_the_index_of_wake_times() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("test.db");
    SqliteQueue::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    let mut db = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    for text in [statements::DUE, statements::NEXT] {
        let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}")));
        let plan = plan.fetch_all(&mut db).await.unwrap();
        let steps: Vec<String> = plan.iter().map(|step| step.get("detail")).collect();
        assert!(steps.iter().any(|step| step.contains("INDEX actornot_entity_wake (wake_at")), "{steps:#?}");
        assert!(!steps.iter().any(|step| step.contains("kind=?")), "{steps:#?}");
        assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:#?}");
    }
}

/// A walk along an index that a LIMIT ends early, or a subquery that was limited already.
fn indexed(step: &str) -> bool {
    step.contains("USING COVERING INDEX actornot_entity_wake") || step.contains("subquery")
}
