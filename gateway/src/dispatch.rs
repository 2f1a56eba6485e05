//! From the feed to the hub: asks what must be asked about a batch, then delivers it in order.
//!
//! One task does this for all tables, so that the order in which changes were committed is the order in which they leave.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::future::try_join_all;
use tokio::sync::mpsc;

use crate::{
    authorizer::{Authorizer, Error},
    catalog::Catalog,
    feed::{Batch, change::Change},
    hub::{Hub, Survey, Verdicts},
    metrics::names,
};

/// An outbox that is fuller than this makes the hub wait a little: a burst of changes should not count as a slow reader.
const FULL: f32 = 0.5;
/// How long a burst may be held back for such readers: for each batch, and at a time.
const PATIENCE: Duration = Duration::from_millis(100);
const BREATH: Duration = Duration::from_millis(2);
/// Changes between two moments at which the readers get the processor.
const STRIDE: usize = 64;
const RETRY: Duration = Duration::from_millis(250);

/// Runs until the feed ends.
pub async fn run(
    mut batches: mpsc::Receiver<Batch>,
    catalog: Arc<Catalog>,
    authorizer: Arc<Authorizer>,
    hub: Arc<Hub>,
) {
    while let Some(batch) = batches.recv().await {
        know_tables(&catalog, &batch).await;
        let survey = hub.survey(&batch);
        let verdicts = if survey.is_empty() {
            Verdicts::default()
        } else {
            answer(&catalog, &authorizer, survey, &batch).await
        };
        let tables = catalog.tables();
        let mut patience = PATIENCE;
        let mut fullest = 0_f32;
        for (place, change) in batch.iter().enumerate() {
            fullest = fullest.max(hub.deliver(&tables, change, place, &verdicts));
            if (place + 1).is_multiple_of(STRIDE) {
                if fullest > FULL && !patience.is_zero() {
                    tokio::time::sleep(BREATH).await;
                    patience = patience.saturating_sub(BREATH);
                } else {
                    tokio::task::yield_now().await;
                }
                fullest = 0.0;
            }
        }
    }
}

/// A table that was watched a moment ago may have changes before the catalog was read anew.
async fn know_tables(catalog: &Catalog, batch: &[Change]) {
    let tables = catalog.tables();
    if batch
        .iter()
        .any(|change| tables.get(change.table).is_none())
        && let Err(error) = catalog.reload().await
    {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "changes of a table that is not known yet go to nobody"
        );
    }
}

/// Asks until there is an answer: a change is not dropped because the database could not be asked.
async fn answer(
    catalog: &Catalog,
    authorizer: &Authorizer,
    survey: Survey,
    batch: &[Change],
) -> Verdicts {
    let Survey { questions, filters } = survey;
    loop {
        match try_answer(catalog, authorizer, &questions, &filters, batch).await {
            Ok(verdicts) => return verdicts,
            Err(error) => {
                metrics::counter!(names::VERDICT_RETRIES).increment(1);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "rows cannot be judged; changes wait until they can be"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn try_answer(
    catalog: &Catalog,
    authorizer: &Authorizer,
    questions: &crate::authorizer::Questions,
    filters: &HashMap<(i32, Arc<str>), Vec<usize>>,
    batch: &[Change],
) -> Result<Verdicts, Error> {
    let tables = catalog.tables();
    let image = |place: usize| batch.get(place).and_then(Change::image);
    let matching = try_join_all(filters.iter().map(|(key, places)| async move {
        let rows = places
            .iter()
            .filter_map(|place| image(*place))
            .map(|image| image.as_json().into())
            .collect();
        let matches = authorizer.matches(key.1.clone(), rows).await?;
        let matching = places
            .iter()
            .zip(matches)
            .filter(|(_, matches)| *matches)
            .map(|(place, _)| *place)
            .collect();
        Ok::<_, Error>((key.clone(), matching))
    }));
    let judged = authorizer.judge(questions.clone(), |id| tables.get(id).cloned(), image);
    let (matching, judged) = futures::try_join!(matching, judged)?;
    Ok(Verdicts::new(judged, matching.into_iter().collect()))
}
