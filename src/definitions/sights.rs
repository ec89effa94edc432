//! First sights: which definition of a tool was seen first, so that a later one is known to be another.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use super::canonical::Definition;

/// First sights that are remembered at one time, over all upstreams.
const SIGHTS_MAX: usize = 1 << 17;

/// What noting gives, once it is done: for each definition, in order, what was seen first. The error is a sentence.
pub type Noted<'a> = Pin<Box<dyn Future<Output = Result<Vec<First>, String>> + Send + 'a>>;

/// The words of a definition, once they are found. The error is a sentence.
pub type Words<'a> = Pin<Box<dyn Future<Output = Result<Option<String>, String>> + Send + 'a>>;

/// Remembers what was seen first.
pub trait Sights: Send + Sync {
    /// Notes that an upstream shows these definitions. What cannot be noted is not believed.
    fn note<'a>(&'a self, upstream: &'a Arc<str>, shown: &'a [Definition]) -> Noted<'a>;

    /// The canonical form of a definition that was shown, by its digest; none where it is not kept.
    fn words<'a>(&'a self, upstream: &'a str, tool: &'a str, digest: &'a str) -> Words<'a>;
}

/// What was seen first of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// This very definition, now.
    Now,
    /// The definition of this digest, before.
    Before(Arc<str>),
}

/// First sights in memory, by digest alone: they end with the process.
#[derive(Default)]
pub struct Remembered(Mutex<HashMap<Key, Arc<str>>>);

/// An upstream and a tool.
type Key = (Arc<str>, Arc<str>);

impl Sights for Remembered {
    fn note<'a>(&'a self, upstream: &'a Arc<str>, shown: &'a [Definition]) -> Noted<'a> {
        // Nothing panics while it holds the lock, and each entry is whole.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut firsts = Vec::with_capacity(shown.len());
        for definition in shown {
            let key = (Arc::clone(upstream), Arc::clone(&definition.name));
            let first = match known.get(&key) {
                Some(digest) => First::Before(Arc::clone(digest)),
                None if known.len() >= SIGHTS_MAX => {
                    return Box::pin(std::future::ready(Err(
                        "there is no room for more first sights".to_owned()
                    )));
                }
                None => {
                    known.insert(key, Arc::clone(&definition.digest));
                    First::Now
                }
            };
            firsts.push(first);
        }
        Box::pin(std::future::ready(Ok(firsts)))
    }

    fn words<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> Words<'a> {
        Box::pin(std::future::ready(Ok(None)))
    }
}
