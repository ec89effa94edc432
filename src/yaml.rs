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
pub fn read<T: DeserializeOwned>(file: &str, text: &str, mistakes: &mut Vec<Mistake>) -> Option<T> {
    let mut tree: Value = match serde_saphyr::from_str(text) {
        Ok(tree) => tree,
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().to_owned();
            mistakes.push(Mistake::new(file, "", format!("not valid YAML: {first}")));
            return None;
        }
    };
    let mut pruned = Pruned::default();
    // Each round removes one value, so the tree's size bounds the rounds; a sane file has few mistakes.
    for _ in 0..ROUNDS_MAX {
        match serde_path_to_error::deserialize::<_, T>(&tree) {
            Ok(value) => return Some(value),
            Err(error) => {
                let steps = steps(error.path());
                let path = pruned.original(&steps);
                let problem = error.into_inner().to_string();
                if !pruned.explains(&path, &problem) {
                    mistakes.push(Mistake::new(file, &path, problem));
                }
                if !prune(&mut tree, steps, &mut pruned) {
                    return None;
                }
            }
        }
    }
    None
}

/// How many mistakes of form are looked for in one file.
const ROUNDS_MAX: usize = 200;

enum Step {
    Key(String),
    Index(usize),
}

/// The steps of a path, as far as they are known.
fn steps(path: &serde_path_to_error::Path) -> Vec<Step> {
    use serde_path_to_error::Segment;
    path.iter()
        .map_while(|segment| match segment {
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// What was removed, by the paths of the file as it was written.
#[derive(Default)]
struct Pruned {
    values: Vec<String>,
    /// The list and the place in it.
    elements: Vec<(String, usize)>,
}

impl Pruned {
    /// The path as the operator sees it: elements that were removed still count.
    fn original(&self, steps: &[Step]) -> String {
        let mut path = String::new();
        for step in steps {
            match step {
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => path.push_str(&format!(".{key}")),
                Step::Index(index) => {
                    let mut gone: Vec<usize> =
                        self.elements.iter().filter(|(list, _)| *list == path).map(|(_, at)| *at).collect();
                    gone.sort_unstable();
                    let at = gone.into_iter().fold(*index, |at, gone| if gone <= at { at + 1 } else { at });
                    path.push_str(&format!("[{at}]"));
                }
            }
        }
        path
    }

    /// Whether a field is only missing because its value was wrong and has been removed.
    fn explains(&self, path: &str, problem: &str) -> bool {
        let field = problem.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        field.is_some_and(|field| {
            let value = if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
            self.values.contains(&value)
        })
    }
}

/// Removes the value at a path, or the innermost one around it; `false` when nothing could be removed.
fn prune(tree: &mut Value, mut steps: Vec<Step>, pruned: &mut Pruned) -> bool {
    let mut path = pruned.original(&steps);
    while let Some(last) = steps.pop() {
        let list = pruned.original(&steps);
        let parent = steps.iter().try_fold(&mut *tree, |value, step| match step {
            Step::Key(key) => value.get_mut(key.as_str()),
            Step::Index(index) => value.get_mut(index),
        });
        match (parent, last) {
            (Some(Value::Object(object)), Step::Key(key)) if object.contains_key(&key) => {
                object.remove(&key);
                pruned.values.push(path);
                return true;
            }
            (Some(Value::Array(array)), Step::Index(index)) if index < array.len() => {
                array.remove(index);
                let at = path.rsplit_once('[').and_then(|(_, at)| at.trim_end_matches(']').parse().ok());
                pruned.elements.push((list, at.unwrap_or(index)));
                return true;
            }
            _ => path = list,
        }
    }
    false
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
        let text = "name: a\nextra: 1\nitems:\n- {size: 300}\n- {size: 1, colour: red}\n- {}\n- {size: 2}\n- {size: x}\n";
        let mut mistakes = Vec::new();
        let sample: Option<Sample> = read("f.yaml", text, &mut mistakes);
        assert!(sample.is_some());
        let lines: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
        let begins = [
            "f.yaml: extra: unknown field",
            "f.yaml: items[0].size: invalid value",
            "f.yaml: items[1].colour: unknown field",
            "f.yaml: items[2]: missing field",
            "f.yaml: items[4].size: invalid type",
        ];
        assert_eq!(lines.len(), begins.len(), "{lines:#?}");
        for (line, begin) in lines.iter().zip(begins) {
            assert!(line.starts_with(begin), "{lines:#?}");
        }
    }

    #[test]
    fn a_key_given_twice_is_a_mistake() {
        let mut mistakes = Vec::new();
        assert!(read::<Sample>("f.yaml", "name: a\nname: b\n", &mut mistakes).is_none());
        assert!(mistakes[0].problem.contains("not valid YAML"), "{mistakes:?}");
    }
}
