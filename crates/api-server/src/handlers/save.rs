//! Archives of images.

use engine::ops::build::outputs;
use engine::ops::save::{self, SaveOptions};
use engine_api::platform::{self, Platform};

use crate::download;
use crate::request::Call;
use crate::response::{self, Answer};
use crate::status::Failure;

/// `GET /images/get`.
pub(crate) async fn several(call: Call) -> Result<Answer, Failure> {
    let names = call.query.all("names");
    answer(&call, names).await
}

/// `GET /images/{}/get`.
pub(crate) async fn one(call: Call) -> Result<Answer, Failure> {
    answer(&call, vec![call.name.clone()]).await
}

/// `GET /longshore/images/{}/files`: the files of an image in an archive, as `build --output` gives them.
pub(crate) async fn files(call: Call) -> Result<Answer, Failure> {
    let (download, chunks) = download::channel();
    outputs::archive(&call.engine, &call.name, None, download).await?;
    Ok(response::archive("application/x-tar", chunks))
}

async fn answer(call: &Call, names: Vec<String>) -> Result<Answer, Failure> {
    let options = SaveOptions { names, platform: wanted_platform(call)? };
    let (download, chunks) = download::channel();
    save::save(&call.engine, options, download).await?;
    Ok(response::archive("application/x-tar", chunks))
}

/// The one platform that an archive is about; before 1.48 nobody asked.
pub(crate) fn wanted_platform(call: &Call) -> Result<Option<Platform>, Failure> {
    let given = if call.version.before(48) { Vec::new() } else { call.query.all("platform") };
    if given.len() > 1 {
        return Err(Failure::invalid("multiple platform parameters not supported"));
    }
    let text = given.into_iter().next().filter(|text| !text.is_empty());
    let platform = text.map(|text| platform::from_json(text.as_bytes())).transpose();
    platform.map_err(|err| Failure::invalid(errdefs::chain(&err)))
}
