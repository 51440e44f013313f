//! What is taken on disk, and what prunes of images and caches free.

use engine::filters::Filters;
use engine::ops::build::Limits;
use engine::ops::{build_cache, disk_usage, image_budget, image_prune};
use engine_api::versions;
use errdefs::ErrorKind;
use http::StatusCode;

use crate::query::decimal;
use crate::request::Call;
use crate::response::{self, Answer};
use crate::status::Failure;

/// `GET /system/df`.
pub(crate) async fn usage(call: Call) -> Result<Answer, Failure> {
    let names = call.query.all("type");
    let parts = versions::upgrade_usage_parts(call.version, names.iter().map(String::as_str));
    let parts = parts.map_err(|err| Failure::invalid(err.to_string()))?;
    let usage = disk_usage::disk_usage(&call.engine, parts).await?;
    Ok(response::json(StatusCode::OK, &versions::downgrade_usage(call.version, usage)))
}

/// `POST /images/prune`.
pub(crate) async fn prune_images(call: Call) -> Result<Answer, Failure> {
    let filters = Filters(call.query.filters()?);
    Ok(response::json(StatusCode::OK, &image_prune::prune(&call.engine, filters).await?))
}

/// `GET /longshore/images/budget`, which Docker does not have.
pub(crate) async fn image_budget(call: Call) -> Result<Answer, Failure> {
    Ok(response::json(StatusCode::OK, &image_budget::explain(&call.engine).await?))
}

/// `POST /build/prune`.
pub(crate) async fn prune_caches(call: Call) -> Result<Answer, Failure> {
    let filters = Filters(call.query.filters()?);
    let mut sizes = [0; 4];
    for (name, size) in ["keep-storage", "reserved-space", "max-used-space", "min-free-space"].iter().zip(&mut sizes) {
        let Some(text) = call.query.given(name) else { continue };
        // As with BuildKit what is negative says nothing.
        *size = text.parse().unwrap_or_default();
        if let Err(cause) = decimal(text) {
            let message = format!(
                "{name} is in bytes and expects an integer, got {text}: strconv.Atoi: parsing {text:?}: {cause}"
            );
            return Err(Failure::new(ErrorKind::InvalidArgument, message));
        }
    }
    let [keep, reserved, max_used, min_free] = sizes;
    // The first is the old name of the second.
    let limits = Limits { reserved: if reserved > 0 { reserved } else { keep }, max_used, min_free };
    let wanted = build_cache::wanted(&filters)?;
    let all = call.query.flag("all");
    Ok(response::json(StatusCode::OK, &build_cache::prune(&call.engine, wanted, all, limits).await))
}
