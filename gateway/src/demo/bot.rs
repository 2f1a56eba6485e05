//! The demo's bot: streams an answer as broadcasts, a piece at a time, and then stores it as a row. It is no model: it puts
//! the question's own words into sentences that say what just happened.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::to_raw_value;
use tokio::sync::OwnedSemaphorePermit;
use uuid::Uuid;

use crate::auth::Principal;
use crate::edge::{self, Refusal};
use crate::posting::{self, NewRow};

use super::Demo;

/// About as fast as one reads.
const PAUSE: Duration = Duration::from_millis(45);
/// What is quoted of the question.
const QUOTED_CHARACTERS: usize = 80;

#[derive(Deserialize)]
struct Question {
    session_id: Uuid,
    prompt: String,
}

pub(super) async fn handle(
    State(demo): State<Demo>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let verified = edge::authenticate(&demo.app, &headers).await?;
    let question: Question = serde_json::from_slice(&body).map_err(|_| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "PGRST102",
            "`session_id` and `prompt` are wanted",
        )
    })?;
    // The bot writes with rights of its own, so the one who asks must be allowed to be here.
    if !is_own_session(&demo, &verified.principal, question.session_id).await? {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "42501",
            "row-level security does not let you into this session",
        ));
    }
    let permit = demo.bots.clone().try_acquire_owned().map_err(|_| {
        Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "53400",
            "The bot is busy: ask again in a moment",
        )
    })?;
    let lifecycle = demo.app.lifecycle.clone();
    let soft = lifecycle.soft().clone();
    lifecycle.spawn(async move {
        tokio::select! {
            () = soft.cancelled() => {}
            () = reply(demo, question, permit) => {}
        }
    });
    Ok(edge::json(StatusCode::ACCEPTED, json!({}).to_string()))
}

async fn is_own_session(
    demo: &Demo,
    principal: &Principal,
    session: Uuid,
) -> Result<bool, Refusal> {
    let asked = async {
        let mut transaction = posting::begin_as(&demo.app.pool, principal).await?;
        let found: bool = sqlx::query_scalar(include_str!("../../demo/has_session.sql"))
            .bind(session)
            .fetch_one(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(found)
    };
    asked
        .await
        .map_err(|error| Refusal::database(error, principal))
}

async fn reply(demo: Demo, question: Question, _permit: OwnedSemaphorePermit) {
    let id = Uuid::new_v4();
    let topic = format!("messages:{}", question.session_id);
    let answer = compose(&question.prompt);
    let mut pause = tokio::time::interval(PAUSE);
    for (n, piece) in answer.split_inclusive(' ').enumerate() {
        pause.tick().await;
        let payload = json!({"id": id, "text": piece, "n": n}).to_string();
        demo.app.topics.send(false, &topic, "token", &payload);
    }
    let payload = json!({"id": id}).to_string();
    demo.app.topics.send(false, &topic, "done", &payload);

    let row = json!({
        "id": id,
        "session_id": question.session_id,
        "role": "assistant",
        "content": answer,
        "model": "demo-bot",
    });
    let stored = match (
        demo.app.catalog.table("public", "chat_messages"),
        to_raw_value(&row),
    ) {
        (Some(table), Ok(json)) => {
            let columns = ["id", "session_id", "role", "content", "model"];
            let row = NewRow {
                columns: columns.map(str::to_owned).to_vec(),
                json: &json,
            };
            posting::insert(
                &demo.app.pool,
                &Principal::of_role("service_role"),
                table.oid,
                &[row],
                false,
                demo.app.settings.statement_timeout,
            )
            .await
            .map(|_| ())
        }
        _ => {
            tracing::warn!("the bot has no table to answer in: is chat_messages watched?");
            Ok(())
        }
    };
    if let Err(error) = stored {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the bot's answer was not stored"
        );
    }
}

/// The same question gets the same answer.
fn compose(prompt: &str) -> String {
    let words: Vec<&str> = prompt.split_whitespace().collect();
    let mut quoted: String = words.join(" ").chars().take(QUOTED_CHARACTERS).collect();
    if quoted.chars().count() == QUOTED_CHARACTERS {
        quoted.push('…');
    }
    let longest = words
        .iter()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
        .max_by_key(|word| word.chars().count())
        .unwrap_or_default();
    let opening = match (words.len(), prompt.trim_end().ends_with('?')) {
        (0, _) => "You sent me nothing, which I can answer at once.".to_owned(),
        (_, true) => format!("You ask: “{quoted}” A good question."),
        (1..=3, false) => format!("“{quoted}”, you say."),
        (count, false) => format!("“{quoted}”: {count} words, and I have read them all."),
    };
    let middle = match longest.chars().map(u32::from).sum::<u32>() % 3 {
        _ if longest.is_empty() => "Write a word and I will turn it over.".to_owned(),
        0 => format!("The word that stays with me is “{longest}”."),
        1 => format!("Somebody who knows more than I do should say something about “{longest}”."),
        _ => format!("If I were a real model I would now go on about “{longest}” for pages."),
    };
    format!(
        "{opening} {middle} But I am the demo bot: these words came one by one as broadcasts, \
         which nobody stores, and in a moment all of them will arrive once more, as a row in PostgreSQL."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_vary_with_the_question_and_never_fail() {
        let questions = [
            "",
            "   ",
            "hello",
            "Is there a moon?",
            "a b c d e",
            "¿¡…!?",
            &"x ".repeat(5000),
        ];
        let answers: std::collections::HashSet<String> =
            questions.iter().map(|prompt| compose(prompt)).collect();
        assert!(answers.len() >= questions.len() - 1);
        assert!(
            answers
                .iter()
                .all(|answer| answer.contains("demo bot") && answer.len() < 1000)
        );
        assert_eq!(compose("hello"), compose("hello"));
    }
}
