//! `checkpoint`: containers are written to files and go on from there with `start --checkpoint`.

use client::checkpoint;
use engine_api::checkpoint::CheckpointCreate;

use super::Context;
use crate::args::{CheckpointVerb, Parsed};
use crate::report::Exit;
use crate::say_line;

/// `checkpoint` and what follows
pub async fn run(context: &Context, verb: CheckpointVerb, parsed: &Parsed) -> Result<(), Exit> {
    let dir = parsed.text("checkpoint-dir");
    let (client, words) = (&context.client, parsed.positionals.as_slice());
    match (verb, words) {
        (CheckpointVerb::Create, [container, name]) => {
            let request = CheckpointCreate {
                checkpoint_id: name.clone(),
                checkpoint_dir: dir.to_owned(),
                exit: !parsed.flag("leave-running"),
            };
            checkpoint::create(client, container, &request).await?;
            say_line!("{name}");
        }
        (CheckpointVerb::List, [container]) => {
            let found = checkpoint::list(client, container, dir).await?;
            say_line!("CHECKPOINT NAME");
            found.iter().for_each(|one| say_line!("{}", one.name));
        }
        (CheckpointVerb::Remove, [container, name]) => checkpoint::remove(client, container, name, dir).await?,
        // The table says how many there are.
        _ => {}
    }
    Ok(())
}
