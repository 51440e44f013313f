//! `COPY` and `ADD`: files of the context, of a stage, of an image or of the web.

use builder::Step;
use builder::provenance::Material;
use dockerfile::{Files, GitAddress};
use registry_client::without_password;

use super::super::BuildError;
use super::super::copy::Copying;
use super::super::remote::{self, Remote};
use super::super::sources::{self, Source, SourceError};
use super::super::work::Work;
use super::sharing::{self, Terms};
use super::stage::{Facts, StageSolver};

impl StageSolver {
    pub(super) async fn copy(&mut self, step: Step, files: Box<Files>, add: bool) -> Result<(), BuildError> {
        let name = if add { "ADD" } else { "COPY" };
        let from = self.tree(&files.from).await;
        let from = from.map_err(|err| BuildError::From { from: files.from.clone(), source: Box::new(err) })?;
        let common = self.common.clone();
        let begun = common.begin_step().await;
        let failed = |source| BuildError::Source { instruction: name, source };
        let (mut fetches, mut remotes) = (false, Vec::new());
        let (from, found, keyed) = loop {
            if add {
                remotes = self.remotes(&files, fetches, remotes).await.map_err(failed)?;
            }
            let (context, wanted, from) = (common.context.clone(), files.clone(), from.clone());
            let buildkit = common.buildkit;
            let remote = remotes.iter().map(Remote::source).collect();
            let (from, found) = bridge::abandonable(move |abandoned| {
                let tree = from.as_ref().map_or(&context.tree, |from| &from.tree);
                let found = sources::select(tree, &wanted, remote, buildkit, abandoned);
                (from, found)
            })
            .await;
            let found: Vec<Source> = found.map_err(failed)?;
            let words = copy_words(step.words.clone(), &found, &files);
            let facts = Facts {
                does: step.words.join(" "),
                arguments: Vec::new(),
                files: found.iter().flat_map(|source| source.files.iter().cloned()).collect(),
                exact: words.last().cloned().unwrap_or_default() + &exacts(&found).join(" "),
                options: copy_options(&files, common.buildkit),
                is_told_whole: is_told_whole(&files),
            };
            let keyed = self.keyed(words, &copy_key(&found, &files, common.buildkit), facts);
            // What was not known when it was asked about is not either when it has come.
            if !fetches && self.known(&keyed).await {
                return Ok(());
            }
            // What was only asked about has to come now, and may be something else by now.
            match fetches || remotes.iter().all(|remote| remote.is_here) {
                true => break (from, found, keyed),
                false => fetches = true,
            }
        };
        let Some(ours) = sharing::shared(self, &keyed, &Terms::default(), &common, begun).await? else { return Ok(()) };
        let (context, buildkit) = (common.context.clone(), common.buildkit);
        self.record(keyed, ours, move |engine, parent, abandoned| {
            let mut work = Work::above(engine, parent)?;
            let tree = from.as_ref().map_or(&context.tree, |from| &from.tree);
            let remote = remote::tree(&context.place).map_err(BuildError::Remote)?;
            let copying = Copying::new(tree, &mut work, &files, add, buildkit, abandoned)?;
            copying.with_remote(remote.as_ref()).run(&found)?;
            Ok(Some(work))
        })
        .await
    }

    /// What an `ADD` has from the web; all of it comes where `fetches`. Of `known`, what was found before, that stays which is
    /// here already.
    async fn remotes(&self, files: &Files, fetches: bool, known: Vec<Remote>) -> Result<Vec<Remote>, SourceError> {
        let (common, mut remotes, mut known) = (&self.common, Vec::new(), known.into_iter());
        for url in files.sources.iter().filter(|source| sources::is_url(source) || sources::is_git(source)) {
            if let Some(here) = known.next().filter(|known| known.is_here) {
                remotes.push(here);
                continue;
            }
            let number = common.number();
            if let Some(address) = GitAddress::parse(url)? {
                let (place, whose) = (&common.context.place, (&common.engine, &common.client));
                let shown = address.without_credentials(url);
                let remote = Remote::look_at_repository(whose, address, files, place, number, fetches).await?;
                common.lookup.takes(Material::Git { url: shown, commit: remote.sum().to_owned() });
                remotes.push(remote);
                continue;
            }
            let remote = Remote::look(&common.engine, url, &common.context.place, number, fetches).await?;
            remote.check(&files.checksum)?;
            common.lookup.takes(Material::Web { url: without_password(url), sum: remote.sum().to_owned() });
            remotes.push(remote);
        }
        Ok(remotes)
    }
}

/// Whether history says all that a copy depends on.
fn is_told_whole(files: &Files) -> bool {
    let has_flags = !files.chmod.is_empty() || !files.exclude.is_empty() || files.parents || files.unpack.is_some();
    !has_flags && files.from.is_empty() && !is_name_alone(&files.chown)
}

/// Whether files get the group of a user, which builders know in two ways.
fn is_name_alone(chown: &str) -> bool {
    !chown.is_empty() && !chown.contains(':') && chown.parse::<u32>().is_err()
}

/// What else a copy depends on.
fn copy_key(found: &[Source], files: &Files, buildkit: bool) -> Vec<String> {
    let mut key = [copy_options(files, buildkit), exacts(found)].concat();
    // Where a directory goes gets its time.
    key.extend((buildkit && found.iter().any(|source| source.is_directory)).then(|| "times=directories'".to_owned()));
    key
}

fn copy_options(files: &Files, buildkit: bool) -> Vec<String> {
    let options = format!("{:?} {} {:?}", files.exclude, files.parents, files.unpack);
    // Files of an image keep their owners.
    let mut all = vec![files.chmod.clone(), options, format!("from={}", !files.from.is_empty())];
    // Directories on the way get the mode, too.
    all.extend((buildkit && !files.chmod.is_empty()).then(|| "mode=directories'".to_owned()));
    // His own group is another one than the one of his name.
    all.extend((buildkit && is_name_alone(&files.chown)).then(|| "group=user's".to_owned()));
    all
}

fn exacts(found: &[Source]) -> Vec<String> {
    found.iter().map(|source| source.exact.clone()).collect()
}

/// What history says of a copy: dockerd's words, with what the files are.
fn copy_words(mut words: Vec<String>, found: &[Source], files: &Files) -> Vec<String> {
    let behind = words.pop().unwrap_or_default();
    let chown = if files.chown.is_empty() { String::new() } else { format!("--chown={} ", files.chown) };
    let whole = format!("{}{chown}{}{behind}", words.pop().unwrap_or_default(), sources::sum(found, files));
    words.push(whole);
    words
}
