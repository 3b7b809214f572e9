//! `POST /v1/rerank`: how relevant documents are for a query. OpenAI has no such endpoint; the words are those of Jina and Cohere.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use engine::{Ranking, Text};
use http::header::CONTENT_TYPE;
use serde::Serialize;

use super::error::ApiError;
use super::{App, Budget, object, with_model};
use crate::tls::Connection;

mod request;
#[cfg(test)]
mod tests;

use request::{Fields, Request as RerankRequest};

pub(super) async fn rerank(
    State(app): State<Arc<App>>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Result<Response, ApiError> {
    let body = app.body(request, app.limits.max_body_bytes).await?;
    let request = object::parse::<Fields>(&body)?.check(app.limits.max_batch_inputs)?;
    drop(body);
    let model = connection.model(&request.model)?;
    let caller = &connection.caller.id;
    let permit = app
        .authorization
        .rerank(caller, model.facts(), request.documents.len())
        .map_err(|denied| app.denied(denied))?;
    let RerankRequest {
        query,
        documents,
        top,
        with_text,
        raw,
        ..
    } = request;
    let documents: Arc<[Text]> = documents.into();
    let ranking = model
        .rerank(
            permit,
            query,
            Arc::clone(&documents),
            caller.to_string().into(),
        )
        .await
        .map_err(|error| ApiError::model(model, &error, "documents"))?;
    let shown = with_text.then_some(&*documents);
    let answer = Answer::new(model.name(), &ranking, shown, top, raw);
    Ok(with_model(respond(&app.answers, &answer)?, model))
}

/// A request of a few bytes for each document can have an answer of several times that, so these are counted.
fn respond(answers: &Budget, answer: &Answer<'_>) -> Result<Response, ApiError> {
    // At most, whatever has to be escaped: growing would leave unwiped copies of documents behind.
    let each = |result: &Entry<'_>| {
        let text = result
            .document
            .as_ref()
            .map_or(0, |document| document.text.len());
        text.saturating_mul(6).saturating_add(128)
    };
    let most: usize = answer.results.iter().map(each).sum();
    let mut json = Vec::with_capacity(most.saturating_add(answer.model.len() * 6 + 128));
    serde_json::to_writer(&mut json, answer).map_err(|_documents_inside| ApiError::internal())?;
    let headers = [(CONTENT_TYPE, "application/json")];
    Ok((headers, answers.answer(json)?).into_response())
}

#[derive(Serialize)]
struct Answer<'a> {
    object: &'static str,
    model: &'a str,
    results: Vec<Entry<'a>>,
    usage: Usage,
}

#[derive(Serialize)]
struct Entry<'a> {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document<'a>>,
}

#[derive(Serialize)]
struct Document<'a> {
    text: &'a str,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u32,
    total_tokens: u32,
}

impl<'a> Answer<'a> {
    /// The `top` most relevant, the best first; of equals the first. A score is between 0 and 1 unless `raw` is set.
    fn new(
        model: &'a str,
        ranking: &Ranking,
        documents: Option<&'a [Text]>,
        top: usize,
        raw: bool,
    ) -> Self {
        let mut order: Vec<(usize, f32)> = ranking.scores.iter().copied().enumerate().collect();
        // Before the logistic function, which makes all high scores the same; sorting is stable.
        order.sort_by(|a, b| b.1.total_cmp(&a.1));
        let results = order.into_iter().take(top).map(|(index, score)| Entry {
            index,
            relevance_score: if raw { score } else { logistic(score) },
            document: documents
                .and_then(|documents| documents.get(index))
                .map(|text| Document {
                    text: text.expose(),
                }),
        });
        Self {
            object: "list",
            model,
            results: results.collect(),
            usage: Usage {
                prompt_tokens: ranking.prompt_tokens,
                total_tokens: ranking.prompt_tokens,
            },
        }
    }
}

fn logistic(score: f32) -> f32 {
    1.0 / (1.0 + (-score).exp())
}
