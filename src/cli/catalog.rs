//! `holdpoint catalog`: drafts entries, compares what is served with what is pinned, and pins.

mod difference;
mod draft;
mod file;
mod openapi;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::policy::Said;
use crate::classify::catalog::{Catalog, Upstream, UpstreamKind};
use crate::classify::template::Template;
use crate::config::{self, CatalogFile, Loaded};
use crate::credential::Broker;
use crate::definitions::ask::{self, Items, List};
use crate::definitions::canonical::{self, Definition};
use crate::forward::Upstreams;
use crate::names::visible;
use draft::Drafted;
use file::CatalogText;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Draft entries for what the catalogue does not name yet. Nothing that is there is changed.
    Discover {
        /// The upstream.
        #[arg(long)]
        upstream: String,
        /// What to draft from. By default an MCP upstream's lists; for HTTP its OpenAPI document, else traffic.
        #[arg(long)]
        from: Option<From>,
        /// Append the draft to the catalogue's file.
        #[arg(long)]
        write: bool,
    },
    /// Show how what is served differs from what is catalogued and pinned; exit 1 when something does.
    Diff {
        /// Only this upstream.
        #[arg(long)]
        upstream: Option<String>,
    },
    /// Pin the definitions that are served now.
    Pin {
        /// Only this upstream.
        #[arg(long)]
        upstream: Option<String>,
        /// Only this tool; needed for one that hides text.
        #[arg(long, requires = "upstream")]
        tool: Option<String>,
        /// Show what would be pinned, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// What a draft is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum From {
    /// What an MCP server lists.
    List,
    /// The OpenAPI document of an HTTP API.
    Openapi,
    /// What the audit says that agents asked of an HTTP API.
    Traffic,
}

/// Done, and everything is as it should be.
const DONE: u8 = 0;
/// Found wanting.
const WANTING: u8 = 1;
/// Could not run.
const UNABLE: u8 = 2;

/// Runs a command on the configuration in this file.
pub(super) fn run(config: &Path, command: Command) -> Said {
    let loaded = match config::load(config) {
        Ok(loaded) => loaded,
        Err(mistakes) => return super::wanting(&mistakes),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return unable(error.to_string()),
    };
    let bench = Bench::of(loaded);
    runtime.block_on(async {
        let said = match command {
            Command::Discover { upstream, from, write } => {
                let then = if write { Then::Write } else { Then::Show };
                bench.discover(&upstream, from, then).await
            }
            Command::Diff { upstream } => bench.diff(upstream.as_deref()).await,
            Command::Pin { upstream, tool, dry_run } => {
                let then = if dry_run { Then::Show } else { Then::Write };
                bench.pin(upstream.as_deref(), tool.as_deref(), then).await
            }
        };
        bench.upstreams.end().await;
        said.unwrap_or_else(unable)
    })
}

fn unable(problem: String) -> Said {
    let json = json!({"ok": false, "error": problem});
    Said { code: UNABLE, text: format!("holdpoint catalog: {problem}\n"), json }
}

/// What becomes of what was made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Show,
    Write,
}

/// What the commands work with.
struct Bench {
    catalog: Catalog,
    files: Vec<CatalogFile>,
    upstreams: Upstreams,
    broker: Broker,
    audit: std::path::PathBuf,
}

impl Bench {
    fn of(loaded: Loaded) -> Bench {
        Bench {
            catalog: loaded.catalog,
            files: loaded.catalogs,
            upstreams: Upstreams::new(loaded.upstreams),
            broker: Broker::new(loaded.credentials),
            audit: loaded.settings.audit.dir,
        }
    }

    fn file(&self, name: &str) -> Result<&CatalogFile, String> {
        let file = self.files.iter().find(|file| &*file.upstream == name);
        file.ok_or_else(|| format!("no upstream `{}` in the configuration", visible(name)))
    }

    fn upstream(&self, name: &str) -> Result<&Upstream, String> {
        let upstream = self.catalog.upstream(name);
        upstream.map(|upstream| &**upstream).ok_or_else(|| format!("no upstream `{}`", visible(name)))
    }

    async fn lists(&self, name: &str, lists: &[List]) -> Result<Vec<Items>, String> {
        let way = self.upstreams.named(name).ok_or_else(|| format!("no upstream `{name}`"))?;
        let found = ask::lists(way, self.broker.own(name)?, lists).await;
        found.map_err(|problem| format!("upstream `{name}`: {problem}"))
    }

    // === discover ===

    async fn discover(&self, name: &str, from: Option<From>, then: Then) -> Result<Said, String> {
        let file = self.file(name)?;
        let upstream = self.upstream(name)?;
        let from = from.unwrap_or(match (file.kind, &file.openapi) {
            (UpstreamKind::Mcp, _) => From::List,
            (UpstreamKind::Http, Some(_)) => From::Openapi,
            (UpstreamKind::Http, None) => From::Traffic,
        });
        let (drafted, mut notes) = match (from, file.kind) {
            (From::List, UpstreamKind::Mcp) => {
                let kinds = [List::Tools, List::Prompts, List::Resources, List::Templates];
                draft::of_lists(&self.lists(name, &kinds).await?)
            }
            (From::Openapi, UpstreamKind::Http) => {
                let path =
                    file.openapi.as_ref().ok_or("this upstream has no `openapi` in the configuration")?;
                let base = self.upstreams.named(name).map_or("/", |upstream| upstream.path.path());
                openapi::drafted(path, base, upstream.config().inside)?
            }
            (From::Traffic, UpstreamKind::Http) => {
                traffic::drafted(&self.audit, name, upstream.config().inside)?
            }
            (From::List, UpstreamKind::Http) => {
                return Err("an HTTP API has no list: use openapi or traffic".to_owned());
            }
            (_, UpstreamKind::Mcp) => return Err("an MCP server is drafted from its lists".to_owned()),
        };
        let count = drafted.len();
        let missing = missing(upstream, drafted, &mut notes);
        let text = match &file.catalog {
            Some(path) => CatalogText::read(path)?,
            None => CatalogText::empty(),
        };
        let added = text.appended(&missing)?;
        let mut shown = added.shown.clone();
        if missing.is_empty() {
            shown = format!("Of {count} found, the catalogue of `{name}` names each.\n");
        }
        for note in &notes {
            shown.push_str(&format!("note: {}\n", visible(note)));
        }
        let mut written = false;
        if then == Then::Write && !missing.is_empty() {
            let path = file
                .catalog
                .as_ref()
                .ok_or("this upstream has no `catalog` in the configuration to write to")?;
            added.check(upstream.config())?;
            file::replace(path, &added.text)?;
            written = true;
            shown.push_str(&format!("{} entries were added to {}\n", missing.len(), path.display()));
        } else if !missing.is_empty() {
            shown.push_str("Nothing was written: --write appends this to the catalogue.\n");
        }
        let keys: Vec<&str> = missing.iter().map(|entry| entry.key.as_str()).collect();
        let json = json!({"ok": true, "upstream": name, "found": count, "added": keys, "draft": added.draft, "notes": notes,
            "written": written});
        Ok(Said { code: DONE, text: shown, json })
    }

    // === diff ===

    async fn diff(&self, only: Option<&str>) -> Result<Said, String> {
        let mut text = String::new();
        let (mut all, mut unable, mut drifted) = (Vec::new(), false, false);
        if let Some(name) = only {
            self.file(name)?;
        }
        for file in self.files.iter().filter(|file| only.is_none_or(|name| *file.upstream == *name)) {
            let name = &*file.upstream;
            let compared = match file.kind {
                UpstreamKind::Mcp => self.compare_tools(file).await,
                UpstreamKind::Http => self.compare_operations(file),
            };
            match compared {
                Ok(found) => {
                    drifted |= !found.is_empty();
                    let summary = match found.len() {
                        0 => "as catalogued and pinned".to_owned(),
                        count => format!("{count} differences"),
                    };
                    text.push_str(&format!("{name}: {summary}\n"));
                    for one in found {
                        text.push_str(&one.text);
                        all.push(json!({"upstream": name, "name": one.name, "what": one.what, "detail": one.detail}));
                    }
                }
                Err(problem) => {
                    unable = true;
                    text.push_str(&format!("{problem}\n"));
                    all.push(json!({"upstream": name, "what": "unable", "detail": problem}));
                }
            }
        }
        let code = match (unable, drifted) {
            (true, _) => UNABLE,
            (false, true) => WANTING,
            (false, false) => DONE,
        };
        Ok(Said { code, text, json: json!({"ok": code == DONE, "differences": all}) })
    }

    async fn compare_tools(&self, file: &CatalogFile) -> Result<Vec<difference::Found>, String> {
        let name = &*file.upstream;
        let items = self.lists(name, &[List::Tools]).await?.into_iter().next().unwrap_or_default();
        let kept = file.catalog.as_deref().map(file::kept).unwrap_or_default();
        let upstream = self.upstream(name)?;
        Ok(difference::tools(upstream, self.catalog.names(), &items, &kept))
    }

    fn compare_operations(&self, file: &CatalogFile) -> Result<Vec<difference::Found>, String> {
        let Some(path) = &file.openapi else { return Ok(Vec::new()) };
        let upstream = self.upstream(&file.upstream)?;
        let base = self.upstreams.named(&file.upstream).map_or("/", |upstream| upstream.path.path());
        let (drafted, _) = openapi::drafted(path, base, upstream.config().inside)?;
        let documented: BTreeSet<&str> = drafted.iter().map(|entry| entry.key.as_str()).collect();
        Ok(difference::operations(upstream, &documented))
    }

    // === pin ===

    async fn pin(&self, only: Option<&str>, tool: Option<&str>, then: Then) -> Result<Said, String> {
        if let Some(name) = only {
            let file = self.file(name)?;
            if file.kind == UpstreamKind::Http {
                return Err("only tools of MCP upstreams have definitions that can be pinned".to_owned());
            }
        }
        let wanted = |file: &&CatalogFile| {
            file.kind == UpstreamKind::Mcp && only.is_none_or(|name| *file.upstream == *name)
        };
        let (mut text, mut pins, mut left) = (String::new(), Vec::new(), Vec::new());
        let mut unable = false;
        for file in self.files.iter().filter(wanted) {
            match self.pin_one(file, tool, then, &mut text).await {
                Ok(done) => {
                    pins.extend(done.pinned);
                    left.extend(done.left);
                }
                Err(problem) => {
                    unable = true;
                    text.push_str(&format!("{problem}\n"));
                }
            }
        }
        for one in &left {
            text.push_str(&format!("not pinned: {one}\n"));
        }
        match (pins.len(), then) {
            (0, _) => text.push_str("There was nothing to pin.\n"),
            (count, Then::Write) => text.push_str(&format!(
                "{count} pinned. A pin says that somebody has read these words and believes them: whoever runs the upstream \
                 wrote them, and a model will act on them.\n"
            )),
            (count, Then::Show) => text.push_str(&format!("{count} would be pinned; nothing was written.\n")),
        }
        let code = if unable {
            UNABLE
        } else if left.is_empty() {
            DONE
        } else {
            WANTING
        };
        let json = json!({"ok": code == DONE, "pinned": pins, "left": left, "written": then == Then::Write});
        Ok(Said { code, text, json })
    }

    async fn pin_one(
        &self,
        file: &CatalogFile,
        tool: Option<&str>,
        then: Then,
        text: &mut String,
    ) -> Result<Pinned, String> {
        let name = &*file.upstream;
        let Some(path) = &file.catalog else { return Err(format!("upstream `{name}` has no catalogue")) };
        let upstream = self.upstream(name)?;
        let items = self.lists(name, &[List::Tools]).await?.into_iter().next().unwrap_or_default();
        let mut served: BTreeMap<String, Vec<Result<Definition, String>>> = BTreeMap::new();
        for item in &items {
            let (name, read) = difference::read(item);
            served.entry(name).or_default().push(read);
        }
        let mut kept = file::kept(path);
        let mut catalog = CatalogText::read(path)?.text;
        let (mut pinned, mut left) = (Vec::new(), Vec::new());
        let mut names: Vec<&str> = upstream.entries().map(|entry| &*entry.profile.name).collect();
        names.sort_unstable();
        if let Some(tool) = tool.filter(|tool| !names.contains(tool)) {
            return Err(format!(
                "the catalogue of `{name}` has no entry `{}`: draft it with `catalog discover`",
                visible(tool)
            ));
        }
        for key in names.into_iter().filter(|key| tool.is_none_or(|tool| tool == *key)) {
            let Some(entry) = upstream.tool(key) else { continue };
            let label = format!("{name}/{}", visible(key));
            let definition = match served.get(key).map(Vec::as_slice) {
                Some([Ok(definition)]) => definition,
                Some([Err(problem)]) => {
                    left.push(format!("{label}: {problem}"));
                    continue;
                }
                Some(_) => {
                    left.push(format!("{label}: the upstream lists it more than once"));
                    continue;
                }
                None => {
                    left.push(format!("{label}: the upstream does not list it"));
                    continue;
                }
            };
            if entry.pin.as_deref() == Some(&*definition.digest) && kept.contains_key(&*definition.digest) {
                continue;
            }
            if let (Some(hidden), None) = (definition.hidden, tool) {
                left.push(format!(
                    "{label}: it has {} in its text, which nobody sees; read it, and name it with --tool",
                    hidden.escape_unicode()
                ));
                continue;
            }
            text.push_str(&difference::pinning(&label, entry.pin.as_deref(), definition, &kept));
            catalog = file::pinned(&catalog, key, &definition.digest)?;
            kept.insert(definition.digest.to_string(), definition.canonical.clone());
            pinned.push(json!({"upstream": name, "tool": key, "pin": &*definition.digest}));
        }
        if then == Then::Write && !pinned.is_empty() {
            // The words first: a pin whose words are missing can still be compared, but not shown.
            file::keep(path, &kept, &catalog)?;
            file::replace(path, &catalog)?;
        }
        Ok(Pinned { pinned, left })
    }
}

/// What pinning one upstream came to.
struct Pinned {
    pinned: Vec<Value>,
    left: Vec<String>,
}

/// What of a draft the catalogue does not name; what cannot be named beside its entries is left out with a note.
fn missing(upstream: &Upstream, drafted: Vec<Drafted>, notes: &mut Vec<String>) -> Vec<Drafted> {
    let known: BTreeSet<&str> = upstream.entries().map(|entry| &*entry.profile.name).collect();
    let mut templates: Vec<(String, Template)> =
        known.iter().filter_map(|key| Some(((*key).to_owned(), Template::parse(key).ok()?))).collect();
    let mut missing: Vec<Drafted> = Vec::new();
    for entry in drafted {
        if known.contains(entry.key.as_str()) || missing.iter().any(|other| other.key == entry.key) {
            continue;
        }
        if upstream.config().kind == UpstreamKind::Http {
            let template = match Template::parse(&entry.key) {
                Ok(template) => template,
                Err(problem) => {
                    notes.push(format!("left out: {problem}"));
                    continue;
                }
            };
            if let Some((other, _)) = templates.iter().find(|(_, other)| template.is_ambiguous_with(other)) {
                notes.push(format!(
                    "left out: some path fits `{}` and `{other}`, and neither is more specific",
                    entry.key
                ));
                continue;
            }
            templates.push((entry.key.clone(), template));
        } else if entry.key.is_empty() || entry.key.contains(char::is_control) {
            notes.push(format!("left out: `{}` cannot be a name in a catalogue", entry.key));
            continue;
        }
        missing.push(entry);
    }
    missing
}

/// Reads one item of a list of tools; the name by which it is told even when the rest cannot be read.
fn definition(item: &str) -> Result<Definition, String> {
    canonical::read(item.as_bytes()).map_err(|fault| fault.to_string())
}
