//! Documents of registries, which Docker's client reads and writes itself.

use engine::ops::registry_manifest::{self, ManifestQuery};
use http::StatusCode;

use crate::handlers::images::authorization;
use crate::request::Call;
use crate::response::{self, Answer};
use crate::status::Failure;

fn query(call: &Call) -> ManifestQuery {
    ManifestQuery {
        name: call.query.text("name").to_owned(),
        insecure: call.query.flag("insecure"),
        authorization: authorization(call).to_owned(),
    }
}

/// `GET /longshore/registry/manifest`.
pub(crate) async fn read(call: Call) -> Result<Answer, Failure> {
    Ok(response::json(StatusCode::OK, &registry_manifest::read(&call.engine, &query(&call)).await?))
}

/// `PUT /longshore/registry/manifest`: the body goes to the registry as it is.
pub(crate) async fn write(mut call: Call) -> Result<Answer, Failure> {
    let document = call.json_text().await?.unwrap_or_default();
    let stored = registry_manifest::write(&call.engine, &query(&call), call.query.text("type"), &document).await?;
    Ok(response::json(StatusCode::OK, &stored))
}

/// `POST /longshore/registry/mount`.
pub(crate) async fn mount(call: Call) -> Result<Answer, Failure> {
    let (from, digest) = (call.query.text("from"), call.query.text("digest"));
    let mounted = registry_manifest::mount(&call.engine, &query(&call), from, digest).await?;
    Ok(response::json(StatusCode::OK, &mounted))
}
