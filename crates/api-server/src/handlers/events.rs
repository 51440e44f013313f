//! The stream of events.

use engine::filters::Filters;
use engine::ops::events::{self, EventsQuery};

use crate::request::Call;
use crate::response::Answer;
use crate::status::Failure;

/// `GET /events`: one line of JSON an event, until `until` or the client goes.
pub(crate) async fn stream(call: Call) -> Result<Answer, Failure> {
    let query = EventsQuery {
        since: call.query.text("since").to_owned(),
        until: call.query.text("until").to_owned(),
        filters: Filters(call.query.filters()?),
    };
    let mut events = events::subscribe(&call.engine, query)?;
    // Creations of images are told since 1.46.
    let skip_image_create = call.version.before(46);
    Ok(call.stream("application/json", async move |sink| {
        while let Some(event) = events.next().await {
            let skipped = skip_image_create && event.kind == "image" && event.action == "create";
            if !skipped && sink.line(&event).await.is_err() {
                return;
            }
        }
    }))
}
