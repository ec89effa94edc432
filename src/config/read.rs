//! Reading one YAML file into a raw type, reporting every mistake in it at once.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The file, as the operator named it.
    pub file: String,
    /// The path within the file, as in `upstreams[1].url`; empty for the file itself.
    pub path: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Mistake {
    /// A mistake at a path of a file.
    pub fn new(file: &str, path: impl Into<String>, problem: impl Into<String>) -> Mistake {
        Mistake { file: file.to_owned(), path: path.into(), problem: problem.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" | "." => write!(f, "{}: {}", self.file, self.problem),
            path => write!(f, "{}: {}: {}", self.file, path, self.problem),
        }
    }
}

/// Reads a file's text as `T`, adding every mistake; `None` when too little is left to go on with.
///
/// The text is deserialised again and again, each time without the value that was wrong the time before, so that
/// one mistake does not hide the next.
pub fn yaml<T: DeserializeOwned>(file: &str, text: &str, mistakes: &mut Vec<Mistake>) -> Option<T> {
    let mut tree: Value = match serde_saphyr::from_str(text) {
        Ok(tree) => tree,
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().to_owned();
            mistakes.push(Mistake::new(file, "", format!("not valid YAML: {first}")));
            return None;
        }
    };
    // Each round removes one value, so the tree's size bounds the rounds; a sane file has few mistakes.
    for _ in 0..ROUNDS_MAX {
        match serde_path_to_error::deserialize::<_, T>(&tree) {
            Ok(value) => return Some(value),
            Err(error) => {
                let path = error.path().clone();
                let mistake = Mistake::new(file, path.to_string(), error.into_inner().to_string());
                if !mistakes.contains(&mistake) {
                    mistakes.push(mistake);
                }
                if !prune(&mut tree, &path) {
                    return None;
                }
            }
        }
    }
    None
}

/// How many mistakes of form are looked for in one file.
const ROUNDS_MAX: usize = 200;

/// Removes the value at a path, or the innermost list element around it; `false` when nothing could be removed.
fn prune(tree: &mut Value, path: &serde_path_to_error::Path) -> bool {
    use serde_path_to_error::Segment;
    let mut steps = Vec::new();
    for segment in path {
        match segment {
            Segment::Map { key } => steps.push(Step::Key(key.clone())),
            Segment::Seq { index } => steps.push(Step::Index(*index)),
            Segment::Enum { .. } | Segment::Unknown => break,
        }
    }
    while let Some(last) = steps.pop() {
        let parent = steps.iter().try_fold(&mut *tree, |value, step| match step {
            Step::Key(key) => value.get_mut(key.as_str()),
            Step::Index(index) => value.get_mut(index),
        });
        match (parent, last) {
            (Some(Value::Object(object)), Step::Key(key)) => {
                if object.remove(&key).is_some() {
                    return true;
                }
            }
            (Some(Value::Array(array)), Step::Index(index)) if index < array.len() => {
                array.remove(index);
                return true;
            }
            _ => {}
        }
    }
    false
}

enum Step {
    Key(String),
    Index(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its form is tested")]
    struct Sample {
        name: String,
        #[serde(default)]
        items: Vec<Item>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its form is tested")]
    struct Item {
        size: u8,
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let text = "name: a\nextra: 1\nitems:\n- {size: 300}\n- {size: 1, colour: red}\n- {}\n- {size: 2}\n";
        let mut mistakes = Vec::new();
        let sample: Option<Sample> = yaml("f.yaml", text, &mut mistakes);
        assert!(sample.is_some());
        let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
        assert_eq!(lines.len(), 5, "{lines:#?}");
        assert!(lines[0].starts_with("f.yaml: extra: unknown field"), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("items[0].size: invalid value")));
    }

    #[test]
    fn a_key_given_twice_is_a_mistake() {
        let mut mistakes = Vec::new();
        assert!(yaml::<Sample>("f.yaml", "name: a\nname: b\n", &mut mistakes).is_none());
        assert!(mistakes[0].problem.contains("not valid YAML"), "{mistakes:?}");
    }
}
