//! Whether the process lives, whether it is of use, and its metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::app::App;

/// Whoever asks whether we are ready does not wait longer for the database.
const DATABASE_PATIENCE: Duration = Duration::from_secs(2);

/// The process runs. Says nothing about the database: restarting us would not mend that.
pub(super) async fn live() -> &'static str {
    "ok"
}

pub(super) async fn ping() -> Response {
    super::json(StatusCode::OK, json!({"message": "Success"}).to_string())
}

/// Clients may be sent here: the database answers, the feed is current, and we are not about to stop.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    if app.lifecycle.is_stopping() {
        // At once, whatever the database does.
        return not_ready(json!({"gateway": "it is stopping: its clients are going elsewhere"}));
    }
    let mut problems = Map::new();
    if let Err(problem) = app.feed.ready() {
        problems.insert("feed".to_owned(), Value::String(problem));
    }
    let asked = sqlx::query("select 1").execute(&app.pool);
    let database = match tokio::time::timeout(DATABASE_PATIENCE, asked).await {
        Ok(Ok(_)) => None,
        Ok(Err(_)) => Some("it refuses the connection or cannot be reached"),
        Err(_) => Some("it does not answer"),
    };
    if let Some(problem) = database {
        problems.insert("database".to_owned(), problem.into());
    }
    if problems.is_empty() {
        super::json(StatusCode::OK, json!({"status": "ready"}).to_string())
    } else {
        not_ready(Value::Object(problems))
    }
}

fn not_ready(problems: Value) -> Response {
    let body = json!({"status": "not ready", "problems": problems});
    super::json(StatusCode::SERVICE_UNAVAILABLE, body.to_string())
}

pub(super) async fn metrics() -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (content_type, crate::metrics::install().render()).into_response()
}
