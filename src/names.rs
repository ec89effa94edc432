//! Names and texts that mislead: characters that nobody sees, and names that look like another.
//!
//! What a model reads of a tool is text, and it reads characters that no person sees. So a definition with such text is
//! not believed until an operator has pinned it, and neither is a tool that takes a known tool's looks.

use std::collections::HashMap;
use std::sync::Arc;

use unicode_security::confusable_detection::skeleton;

/// The longest name of which the looks are compared, in bytes; a longer one looks like nothing but itself.
const NAME_BYTES_MAX: usize = 512;

/// The first character of a text that a person would not see, or that changes how the rest of it is shown.
///
/// These are the controls (but tab and line ends), zero-width and bidirectional marks, the invisible operators, soft
/// hyphens, the tag characters, and variation selectors; the last two of these and joiners only where no emoji needs them.
pub fn hidden(text: &str) -> Option<char> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r')) {
        return None;
    }
    let mut before = ' ';
    let mut chars = text.chars().peekable();
    while let Some(each) = chars.next() {
        let after = chars.peek().copied().unwrap_or(' ');
        if is_hidden(each) && !is_of_an_emoji(before, each, after) {
            return Some(each);
        }
        before = each;
    }
    None
}

/// A text as a terminal may show it: what is hidden or controls it is written as an escape, and so are line ends.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for each in text.chars() {
        if is_hidden(each) || each.is_control() {
            shown.extend(each.escape_unicode());
        } else {
            shown.push(each);
        }
    }
    shown
}

fn is_hidden(each: char) -> bool {
    matches!(each,
        '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a selector or a joiner stands where emoji need it: one after a symbol, or between two.
fn is_of_an_emoji(before: char, each: char, after: char) -> bool {
    let symbol = |other: char| matches!(other, '\u{203c}'..='\u{3299}' | '\u{1f000}'..='\u{1faff}' | '\u{a9}' | '\u{ae}');
    match each {
        '\u{fe0e}' | '\u{fe0f}' => (symbol(before) && !is_hidden(before)) || after == '\u{20e3}',
        '\u{200d}' => {
            (symbol(before) || before == '\u{fe0f}')
                && matches!(after, '\u{2600}'..='\u{27bf}' | '\u{1f000}'..='\u{1faff}')
        }
        _ => false,
    }
}

/// What a name looks like: its skeleton [UTS 39 §4], in which case and the difference between `_`, `-`, `.` and space
/// do not count.
pub fn looks(name: &str) -> String {
    if name.len() > NAME_BYTES_MAX {
        return name.to_owned();
    }
    let lower: String = skeleton(name).flat_map(char::to_lowercase).collect();
    // Lower case can look like something else again: `I` is a small `l` only once it is an `i` no more.
    skeleton(&lower).filter(|each| !matches!(each, '_' | '-' | '.' | ' ' | '/')).collect()
}

/// The names that operators have given something to, by what they look like.
#[derive(Clone, Debug, Default)]
pub struct Names(HashMap<String, Vec<Owned>>);

/// A name, and the upstream whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The upstream.
    pub upstream: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl Names {
    /// Adds a name.
    pub fn add(&mut self, upstream: &Arc<str>, name: &Arc<str>) {
        let owned = Owned { upstream: Arc::clone(upstream), name: Arc::clone(name) };
        self.0.entry(looks(name)).or_default().push(owned);
    }

    /// The name for which this one of this upstream could be taken: another upstream's of the same looks, or one of its
    /// own that is written otherwise.
    pub fn taken_for(&self, upstream: &str, name: &str) -> Option<&Owned> {
        let alike = self.0.get(&looks(name))?;
        alike.iter().find(|owned| *owned.upstream != *upstream || *owned.name != *name)
    }

    /// Every group of names that look alike and are not written alike, sorted.
    pub fn alike(&self) -> Vec<Vec<Owned>> {
        let differ = |group: &&Vec<Owned>| {
            group.first().is_some_and(|first| group.iter().any(|other| other.name != first.name))
        };
        let mut groups: Vec<Vec<Owned>> = self.0.values().filter(differ).cloned().collect();
        for group in &mut groups {
            group.sort_by(|a, b| (&a.upstream, &a.name).cmp(&(&b.upstream, &b.name)));
        }
        groups.sort_by(|a, b| {
            let key =
                |group: &[Owned]| group.first().map(|owned| (owned.upstream.clone(), owned.name.clone()));
            key(a).cmp(&key(b))
        });
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_found() {
        for (text, found) in [
            ("send\u{200b}email", '\u{200b}'),
            ("a\u{202e}b", '\u{202e}'),
            ("a\u{2066}b", '\u{2066}'),
            ("Reads mail.\u{e0049}\u{e0067}", '\u{e0049}'),
            ("x\u{fe01}", '\u{fe01}'),
            ("x\u{e0101}", '\u{e0101}'),
            ("\u{26a0}\u{fe0f}\u{fe0f}", '\u{fe0f}'),
            ("\u{1b}[8mhidden\u{1b}[0m", '\u{1b}'),
            ("\u{9b}8m", '\u{9b}'),
            ("soft\u{ad}hyphen", '\u{ad}'),
            ("\u{feff}x", '\u{feff}'),
            ("x\u{3164}", '\u{3164}'),
            ("word\u{200d}word", '\u{200d}'),
        ] {
            assert_eq!(hidden(text), Some(found), "{text:?}");
        }
    }

    #[test]
    fn what_people_write_is_not() {
        for text in [
            "Sends a mail.\n\tTo: the recipient\r\n",
            "Überweist 100 € an José",
            "検索します",
            "\u{26a0}\u{fe0f} deletes everything",
            "1\u{fe0f}\u{20e3} first",
            "\u{1f469}\u{200d}\u{1f4bb} for people",
            "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}",
        ] {
            assert_eq!(hidden(text), None, "{text:?}");
        }
    }

    #[test]
    fn names_of_the_same_looks_are_alike() {
        for (one, two) in [
            ("send_email", "send-email"),
            ("send_email", "Send.Email"),
            ("send_email", "sendEmail"),
            ("send_email", "s\u{435}nd_email"),
            ("send_email", "send\u{200b}_email"),
            ("send_email", "\u{ff53}end_email"),
            ("pay_bill", "pay_bi1l"),
            ("pay_bill", "pay_biIl"),
        ] {
            assert_eq!(looks(one), looks(two), "{one} {two}");
        }
        for (one, two) in [("read_mail", "read_mails"), ("get", "set"), ("a", "b")] {
            assert_ne!(looks(one), looks(two), "{one} {two}");
        }
    }

    #[test]
    fn a_name_is_taken_for_anothers_or_for_one_that_is_written_otherwise() {
        let (mail, crm): (Arc<str>, Arc<str>) = ("mail".into(), "crm".into());
        let mut names = Names::default();
        names.add(&mail, &"send_email".into());
        names.add(&crm, &"find".into());
        assert_eq!(names.taken_for("mail", "send_email"), None);
        assert_eq!(names.taken_for("crm", "send_email").map(|owned| &*owned.upstream), Some("mail"));
        assert_eq!(names.taken_for("mail", "send-email").map(|owned| &*owned.name), Some("send_email"));
        assert_eq!(names.taken_for("mail", "other"), None);
        assert!(names.alike().is_empty());
        names.add(&crm, &"send-email".into());
        assert_eq!(names.alike().len(), 1);
    }

    #[test]
    fn what_is_shown_controls_no_terminal() {
        assert_eq!(visible("a\u{1b}[2J\u{202e}b\n"), "a\\u{1b}[2J\\u{202e}b\\u{a}");
    }
}
