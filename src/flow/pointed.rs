//! What of a record stands for something: what the catalogue points to, or what is likely by its name.

use crate::classify::view::Pointer;
use crate::json::{self, Value};

/// How many parties, or ids, one record may have.
const PARTIES_MAX: usize = 256;
/// The longest value that something is referred to by.
const ID_BYTES_MAX: usize = 256;

/// Calls back with the texts that pointers lead to, as far as one record may have so many.
pub fn texts(pointers: &[Pointer], value: Value<'_>, mut found: impl FnMut(&str)) {
    let mut left = PARTIES_MAX;
    for pointer in pointers {
        pointer.texts(value, |text| {
            if text.len() <= ID_BYTES_MAX && left > 0 {
                left -= 1;
                found(&text);
            }
        });
    }
}

/// What a record is probably referred to by, where the catalogue does not say: short values of members that are called
/// so.
pub fn likely_ids(value: Value<'_>) -> Vec<String> {
    const NAMES: [&str; 9] = ["id", "uid", "uuid", "key", "uri", "url", "path", "filename", "name"];
    let named = |name: &str| {
        let name = json::fold(name);
        let name = name.trim_matches('_');
        NAMES.iter().any(|each| {
            name == *each || name.strip_suffix(each).is_some_and(|rest| rest.ends_with(['_', '-']))
        })
    };
    let short = value.members().filter(|(name, _)| named(name)).filter_map(|(_, value)| scalar(value));
    short.filter(|text| text.len() <= ID_BYTES_MAX).take(PARTIES_MAX).collect()
}

fn scalar(value: Value<'_>) -> Option<String> {
    value.string().map(|text| text.into_owned()).or_else(|| value.number().map(str::to_owned))
}
