//! The people's YAML: a list of those who look after agents.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::sources::Sources;
use crate::call::{AgentId, Person};
use crate::identify::people::People;
use crate::identify::svid;
use crate::yaml::{self, Mistake};

/// Roles, or teams, that one person may have.
const WORDS_MAX: usize = 64;

/// One person.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawPerson {
    /// The SPIFFE ID in the person's certificate, in a trust domain with `roles: [people]`.
    pub id: Option<String>,
    /// Whom the identity provider says the person is.
    pub oidc: Option<RawSubject>,
    /// The e-mail address, by which agents' owners are named.
    pub email: Option<String>,
    /// What the person is: `approver`, `oncall`, `auditor`, `admin`, or words of your own policies.
    #[serde(default)]
    pub roles: Vec<String>,
    /// The teams whose agents the person looks after.
    #[serde(default)]
    pub teams: Vec<String>,
}

/// A person by the name that an identity provider has for them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawSubject {
    /// The provider, exactly as it names itself: the issuer of the section `oidc`.
    pub iss: String,
    /// The provider's own name for the person, the claim `sub`; no e-mail address unless the provider uses one as that.
    pub sub: String,
}

/// Reads a file, adding every mistake.
pub fn load(path: &Path, sources: &mut Sources, mistakes: &mut Vec<Mistake>) -> People {
    let file = path.display().to_string();
    sources.will_read(path);
    match std::fs::read_to_string(path) {
        Ok(text) => {
            sources.has_read("people", file.as_bytes(), text.as_bytes());
            parse(&file, &text, mistakes)
        }
        Err(error) => {
            mistakes.push(Mistake::new(&file, "", format!("cannot be read: {error}")));
            People::default()
        }
    }
}

/// Reads a file's text, adding every mistake.
pub fn parse(file: &str, text: &str, mistakes: &mut Vec<Mistake>) -> People {
    let raw = yaml::read::<Option<Vec<RawPerson>>>(file, text, mistakes).flatten().unwrap_or_default();
    let mut people: Vec<Person> = Vec::new();
    let mut subjects = Vec::new();
    let mut seen: HashMap<(&str, String), usize> = HashMap::new();
    for (at, raw) in raw.iter().enumerate() {
        let mut problems = Vec::new();
        let person = person(raw, &mut problems);
        let mut once = |key: &'static str, value: String, problems: &mut Vec<(&str, String)>| {
            if let Some(first) = seen.insert((key, value), at) {
                problems.push((key, format!("this {key} is already that of [{first}]")));
            }
        };
        if let Some(person) = &person {
            once("id", person.id.to_string(), &mut problems);
            if !person.email.is_empty() {
                once("email", person.email.to_ascii_lowercase(), &mut problems);
            }
            if let Some(RawSubject { iss, sub }) = &raw.oidc {
                once("oidc", format!("{iss} {sub}"), &mut problems);
                subjects.push(((iss.clone(), sub.clone()), person.id.clone()));
            }
        }
        for (key, problem) in problems {
            mistakes.push(Mistake::new(file, format!("[{at}].{key}"), problem));
        }
        people.extend(person);
    }
    People::new(people).known_as(subjects)
}

fn person(raw: &RawPerson, problems: &mut Vec<(&'static str, String)>) -> Option<Person> {
    if raw.oidc.as_ref().is_some_and(|subject| subject.iss.is_empty() || subject.sub.is_empty()) {
        problems.push(("oidc", "must be {iss: ISSUER, sub: NAME}, neither empty".to_owned()));
    }
    let email = raw.email.as_deref().unwrap_or_default();
    if raw.email.is_some() && !is_address(email) {
        problems.push(("email", format!("{email:?} is not an address such as ana@example.org")));
    }
    for (key, words) in [("roles", &raw.roles), ("teams", &raw.teams)] {
        if words.len() > WORDS_MAX {
            problems.push((key, format!("must be at most {WORDS_MAX}")));
        }
        if words.iter().any(|word| word.trim().is_empty()) {
            problems.push((key, "must not be empty words: an agent of no team is nobody's".to_owned()));
        }
    }
    let id = id(raw, problems)?;
    Some(Person { id, email: Arc::from(email), roles: words(&raw.roles), teams: words(&raw.teams) })
}

fn id(raw: &RawPerson, problems: &mut Vec<(&'static str, String)>) -> Option<AgentId> {
    let Some(id) = raw.id.as_deref() else {
        problems.push(("id", "missing: a SPIFFE ID such as spiffe://people.example.org/ana".to_owned()));
        return None;
    };
    svid::parse_id(id).map_err(|error| problems.push(("id", format!("{id}: {error}")))).ok()
}

/// One `@` with something on both sides and no blanks: enough to see that a name was not written in its place.
fn is_address(text: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && !part.contains(char::is_whitespace) && !part.contains('@');
    text.split_once('@').is_some_and(|(local, host)| plain(local) && plain(host))
}

fn words(words: &[String]) -> Vec<Arc<str>> {
    let mut words: Vec<Arc<str>> = words.iter().map(|word| Arc::from(word.as_str())).collect();
    words.sort();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (People, Vec<String>) {
        let mut mistakes = Vec::new();
        let people = parse("people.yaml", text, &mut mistakes);
        (people, mistakes.iter().map(Mistake::to_string).collect())
    }

    #[test]
    fn people_are_read_with_their_roles_and_teams() {
        let (people, mistakes) = read(
            "- {id: spiffe://people.example.org/ana, email: ana@example.org, roles: [oncall, approver], teams: [care]}\n\
             - {id: spiffe://People.Example.org/bo, roles: [auditor]}\n",
        );
        assert_eq!(mistakes, Vec::<String>::new());
        let ana = people.find(&AgentId::from_normalised("spiffe://people.example.org/ana")).unwrap();
        assert_eq!(ana.roles, [Arc::from("approver"), Arc::from("oncall")]);
        assert!(people.find(&AgentId::from_normalised("spiffe://people.example.org/bo")).is_some());
        assert_eq!(people.len(), 2);
        assert!(read("").0.is_empty());
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let (_, mistakes) = read(
            "- {id: spiffe://people.example.org/ana, email: ana@example.org}\n\
             - {id: spiffe://people.example.org/ana, email: Ana@example.org, role: [admin]}\n\
             - {email: nobody, teams: [\"\"], oidc: {iss: x, sub: \"\"}}\n\
             - {id: ana}\n",
        );
        let told = [
            "people.yaml: [1].role: unknown field `role`",
            "people.yaml: [1].id: this id is already that of [0]",
            "people.yaml: [1].email: this email is already that of [0]",
            "people.yaml: [2].oidc: must be {iss: ISSUER, sub: NAME}",
            "people.yaml: [2].email: \"nobody\" is not an address",
            "people.yaml: [2].teams: must not be empty words",
            "people.yaml: [2].id: missing",
            "people.yaml: [3].id: ana: ",
        ];
        assert_eq!(mistakes.len(), told.len(), "{mistakes:#?}");
        assert!(mistakes.iter().zip(told).all(|(got, start)| got.starts_with(start)), "{mistakes:#?}");
    }
}
