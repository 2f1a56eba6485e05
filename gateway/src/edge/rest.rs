//! `POST /rest/v1/{table}`: an insert into a watched table, as PostgREST would take it and as the token's principal.

mod accept;
mod request;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::app::App;
use crate::catalog::Table;
use crate::metrics::names;
use crate::posting;

use super::Refusal;
use accept::{Form, ONE_OBJECT};
use request::{Parameters, Preferences};

/// A body that trickles in holds a connection for no longer.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// All that is below `/rest/v1`.
pub(super) fn routes() -> Router<Arc<App>> {
    let tables = Router::new()
        .route("/{table}", post(handle).fallback(only_inserts))
        .fallback(nothing);
    Router::new()
        .nest("/rest/v1", tables)
        // Nothing comes after the slash: no fallback of a nested router matches that.
        .route("/rest/v1/", any(nothing))
}

async fn handle(
    State(app): State<Arc<App>>,
    Path(table): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let answer = insert(&app, &table, &query, &head.headers, body).await;
    let result = match &answer {
        Ok(_) => "stored",
        Err(refusal) => match refusal.status().as_u16() {
            401 | 403 => "forbidden",
            429 => "limited",
            400..500 => "invalid",
            _ => "failed",
        },
    };
    metrics::counter!(names::POSTS, "result" => result).increment(1);
    answer.unwrap_or_else(IntoResponse::into_response)
}

async fn insert(
    app: &App,
    table: &str,
    query: &[(String, String)],
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let verified = super::authenticate(app, headers).await?;
    let parameters = Parameters::parse(query)?;
    let preferences = Preferences::parse(headers)?;
    let form = Form::parse(headers)?;
    let selected = parameters.select.as_deref();
    let table = find_table(app, headers, table, selected.unwrap_or_default()).await?;

    let limit = app.settings.max_message_bytes;
    let body = read(body, limit).await?;
    let rows = request::rows(&body, parameters.columns.as_deref(), preferences.defaults)?;
    if form == Form::Object && preferences.returning && rows.len() != 1 {
        return Err(not_one_object());
    }

    if let Some(posts) = &verified.posts
        && !posts.take(rows.len(), Instant::now())
    {
        return Err(Refusal::too_many(posts.per_second()));
    }
    let principal = &verified.principal;
    let (pool, timeout) = (&app.pool, app.settings.statement_timeout);
    let stored = match selected.filter(|_| preferences.returning) {
        Some(selected) => {
            posting::insert_selecting(pool, principal, table.oid, &rows, selected, timeout).await
        }
        None => {
            let returning = preferences.returning;
            posting::insert(pool, principal, table.oid, &rows, returning, timeout).await
        }
    };
    let stored = stored.map_err(|error| Refusal::database(error, principal))?;
    answer(stored, &preferences, form)
}

/// Only tables that are watched exist here: this is a way to post messages, not an interface to the database.
async fn find_table(
    app: &App,
    headers: &HeaderMap,
    name: &str,
    selected: &[String],
) -> Result<Arc<Table>, Refusal> {
    let schema = match headers.get("content-profile") {
        None => "public",
        Some(profile) => profile.to_str().unwrap_or_default(),
    };
    let lacks = |table: &Table| {
        selected
            .iter()
            .find(|column| table.column(column).is_none())
            .cloned()
    };
    if let Some(table) = app.catalog.table(schema, name)
        && lacks(&table).is_none()
    {
        return Ok(table);
    }
    // It may have been created a moment ago. If the database cannot say, then it is unknown for now.
    if let Err(error) = app.catalog.sync_soon().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the catalog could not be read again"
        );
    }
    let table = app.catalog.table(schema, name).ok_or_else(|| {
        Refusal::new(
            StatusCode::NOT_FOUND,
            "PGRST205",
            format!("Could not find the table '{schema}.{name}' in the schema cache"),
        )
        .hint("Only watched tables take messages: tidings.watch() or the publication supabase_realtime adds one.")
    })?;
    match lacks(&table) {
        None => Ok(table),
        Some(column) => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "42703",
            format!("column {name}.{column} does not exist"),
        )),
    }
}

async fn read(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::body_too_large(limit)),
        Ok(Err(_)) | Err(_) => Err(Refusal::body_not_read()),
    }
}

fn answer(
    stored: Vec<Box<RawValue>>,
    preferences: &Preferences,
    form: Form,
) -> Result<Response, Refusal> {
    let applied = match preferences.returning {
        true => "return=representation",
        false => "return=minimal",
    };
    let mut response = if !preferences.returning {
        StatusCode::CREATED.into_response()
    } else if form == Form::Object {
        // None if a trigger has swallowed it. The row is not taken back: it was never there.
        let row = stored.first().ok_or_else(not_one_object)?;
        let content_type = [(header::CONTENT_TYPE, ONE_OBJECT)];
        (StatusCode::CREATED, content_type, row.get().to_owned()).into_response()
    } else {
        let rows: Vec<&str> = stored.iter().map(|row| row.get()).collect();
        super::json(StatusCode::CREATED, format!("[{}]", rows.join(",")))
    };
    response
        .headers_mut()
        .insert("preference-applied", HeaderValue::from_static(applied));
    Ok(response)
}

async fn only_inserts() -> Response {
    let refusal = Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "PGRST117",
        "only POST (insert) is served here",
    );
    ([(header::ALLOW, "POST, OPTIONS")], refusal).into_response()
}

async fn nothing() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "PGRST125",
        "Invalid path specified in request URL",
    )
    .hint("Only POST /rest/v1/{table} is served here: no functions, no other paths.")
}

fn not_one_object() -> Refusal {
    Refusal::new(
        StatusCode::NOT_ACCEPTABLE,
        "PGRST116",
        "Cannot coerce the result to a single JSON object",
    )
}
