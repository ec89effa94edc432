//! Secrets, recognised by how they are made, or by the word that stands before them.
//!
//! How the keys of well-known services begin, how long they are and of what characters is public: it is what their
//! owners publish so that such keys are found. A word alone makes no secret of a common word after it: what follows
//! must itself be made up.

use std::ops::Range;

use super::canon::{Canon, Piece};

/// The longest secret that is told by the name of its member.
const NAMED_BYTES_MAX: usize = 512;
/// How many words may stand between a label and the secret: `the password for the server is …`.
const WORDS_BETWEEN_MAX: usize = 5;
/// The shortest secret after a label, in letters and digits.
const LABELLED_BYTES_MIN: usize = 4;

/// What is said of a text by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Its name says nothing.
    None,
    /// It is called a password, a token, a key.
    Secret,
}

impl Labels {
    /// What the name of a member says of its value.
    pub fn named(name: &str) -> Labels {
        const WHOLE: [&str; 5] = ["pin", "otp", "cvv", "pwd", "secret"];
        const ENDS: [&str; 11] = [
            "password",
            "passwd",
            "passphrase",
            "passcode",
            "secretkey",
            "clientsecret",
            "apikey",
            "accesskey",
            "privatekey",
            "accesstoken",
            "refreshtoken",
        ];
        // Nearly every name is another one by its last letter.
        let last = name.bytes().rev().find(u8::is_ascii_alphanumeric).unwrap_or_default();
        if !matches!(last.to_ascii_lowercase(), b'd' | b'e' | b'n' | b'p' | b't' | b'v' | b'y') {
            return Labels::None;
        }
        // The last letters and digits, in lower case: as many as the longest of these has.
        let (mut last, mut count) = ([0; 16], 0);
        for byte in name.bytes().rev().filter(u8::is_ascii_alphanumeric) {
            if let Some(slot) = last.iter_mut().nth_back(count) {
                *slot = byte.to_ascii_lowercase();
            }
            count += 1;
        }
        let whole = WHOLE.iter().any(|word| count == word.len() && last.ends_with(word.as_bytes()));
        let says = whole || ENDS.iter().any(|end| last.ends_with(end.as_bytes()));
        if says { Labels::Secret } else { Labels::None }
    }
}

/// Calls back with the canonical form of every secret in a text that was read: by its name, by how it is made, and by
/// the label before it.
pub fn find(text: &str, canon: &Canon, labels: Labels, mut found: impl FnMut(&[u8])) {
    if labels == Labels::Secret && (LABELLED_BYTES_MIN..=NAMED_BYTES_MAX).contains(&canon.bytes.len()) {
        found(&canon.bytes);
    }
    // A secret ends what the label before it labels.
    let mut from = 0;
    for (at, piece) in canon.odd_pieces() {
        let bytes = canon.piece(piece);
        let labelled = bytes.len() >= LABELLED_BYTES_MIN
            && is_made_up(piece)
            && follows_label(canon, from.max(at.saturating_sub(WORDS_BETWEEN_MAX))..at);
        if labelled || (is_likely(piece) && is_made(raw(text, piece))) {
            found(bytes);
            from = at + 1;
        }
    }
}

/// Counts the secrets in a text that leaves: those that are known by how they are made. Labels are no evidence there.
pub fn made(text: &str, canon: &Canon) -> u32 {
    canon.odd_pieces().filter(|(_, piece)| is_likely(piece) && is_made(raw(text, piece))).count() as u32
}

fn raw<'t>(text: &'t str, piece: &Piece) -> &'t str {
    text.get(piece.raw_start as usize..piece.raw_end as usize).unwrap_or_default()
}

fn is_likely(piece: &Piece) -> bool {
    piece.has_digit() && piece.raw_end - piece.raw_start >= 16
}

/// A made-up piece is no address and no host: those are told as what they are.
fn is_made_up(piece: &Piece) -> bool {
    piece.is_made_up() && !piece.has_at()
}

/// Whether any of these pieces says that what follows it is secret.
fn follows_label(canon: &Canon, numbers: Range<usize>) -> bool {
    let word = |at: usize| canon.pieces.get(at).map(|piece| canon.piece(piece)).unwrap_or_default();
    numbers.into_iter().any(|at| {
        let before = at.checked_sub(1).map(word).unwrap_or_default();
        is_label(word(at)) && !is_public_code(before, word(at))
    })
}

fn is_label(canonical: &[u8]) -> bool {
    // Nearly every word is another one by its first letter.
    let first = canonical.first().copied().unwrap_or_default();
    matches!(first, b'a' | b'c' | b'o' | b'p' | b's' | b't')
        && matches!(
            canonical,
            b"password"
                | b"passwd"
                | b"pwd"
                | b"passphrase"
                | b"passcode"
                | b"secret"
                | b"token"
                | b"apikey"
                | b"accesskey"
                | b"privatekey"
                | b"credential"
                | b"credentials"
                | b"code"
                | b"pin"
                | b"otp"
                | b"passwords"
        )
}

/// Codes that everybody may know: `zip code`, `error code`.
fn is_public_code(before: &[u8], label: &[u8]) -> bool {
    label == b"code"
        && matches!(
            before,
            b"zip"
                | b"postal"
                | b"post"
                | b"country"
                | b"area"
                | b"error"
                | b"status"
                | b"exit"
                | b"source"
                | b"promo"
                | b"discount"
                | b"voucher"
                | b"dress"
                | b"qr"
                | b"bar"
                | b"color"
        )
}

/// How the keys of a kind are made.
struct Made {
    prefix: &'static str,
    /// The shortest that a whole key is.
    bytes_min: usize,
    /// Which bytes follow the prefix.
    of: fn(u8) -> bool,
}

const fn kind(prefix: &'static str, bytes_min: usize, of: fn(u8) -> bool) -> Made {
    Made { prefix, bytes_min, of }
}

fn capital(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn alnum(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

fn wordy(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

const KINDS: [Made; 27] = [
    // Amazon: access keys.
    kind("AKIA", 20, capital),
    kind("ASIA", 20, capital),
    // GitHub and GitLab: tokens.
    kind("ghp_", 40, alnum),
    kind("gho_", 40, alnum),
    kind("ghu_", 40, alnum),
    kind("ghs_", 40, alnum),
    kind("ghr_", 40, alnum),
    kind("github_pat_", 40, wordy),
    kind("glpat-", 26, wordy),
    // Slack: tokens.
    kind("xoxb-", 24, wordy),
    kind("xoxp-", 24, wordy),
    kind("xoxa-", 24, wordy),
    kind("xapp-", 24, wordy),
    // Makers of models: API keys.
    kind("sk-ant-", 32, wordy),
    kind("sk-proj-", 32, wordy),
    kind("sk-", 35, alnum),
    kind("hf_", 34, alnum),
    // Payments: live keys.
    kind("sk_live_", 24, alnum),
    kind("rk_live_", 24, alnum),
    kind("whsec_", 30, alnum),
    // Google: API keys and OAuth secrets.
    kind("AIza", 39, wordy),
    kind("GOCSPX-", 28, wordy),
    // Registries and mail.
    kind("npm_", 36, alnum),
    kind("pypi-", 40, wordy),
    kind("dop_v1_", 64, alnum),
    kind("SG.", 60, wordy),
    // Vault.
    kind("hvs.", 24, wordy),
];

/// Whether a piece is made like a key of a known kind, or is a JSON Web Token.
fn is_made(piece: &str) -> bool {
    let of_a_kind = |made: &Made| {
        piece.len() >= made.bytes_min
            && piece.strip_prefix(made.prefix).is_some_and(|rest| rest.bytes().all(made.of))
    };
    let token = piece.starts_with("eyJ") && piece.len() >= 40 && piece.split('.').count() == 3;
    token || KINDS.iter().any(of_a_kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let canon = Canon::of(text);
        let mut found = Vec::new();
        find(text, &canon, Labels::None, |secret| found.push(String::from_utf8(secret.to_vec()).unwrap()));
        found
    }

    #[test]
    fn secrets_are_found_by_their_label_and_by_how_they_are_made() {
        assert_eq!(found("Your security code is 463820."), ["463820"]);
        assert_eq!(found("Secret key is 1a7b3d."), ["1a7b3d"]);
        assert_eq!(found("the password for the portal: emma.student.pass"), ["emmastudentpass"]);
        assert_eq!(
            found("[Reset](https://example.com/reset/token=?asfbuy3y2cdaqhvei)"),
            ["asfbuy3y2cdaqhvei"]
        );
        let key = ["AKIA", "IOSFODNN7EXAMPLE"].concat();
        assert_eq!(found(&format!("use {key} for now")), [key.to_lowercase()]);
    }

    #[test]
    fn what_everybody_may_know_is_no_secret() {
        for text in [
            "The password is required for everybody.",
            "zip code 75002 Paris",
            "It failed with status code 50312 again",
            "a token of appreciation for everyone",
            "Invoice 2024-0815 over 1100.00",
        ] {
            assert!(found(text).is_empty(), "{text}: {:?}", found(text));
        }
    }

    #[test]
    fn the_name_of_a_member_says_that_its_value_is_secret() {
        assert_eq!(Labels::named("db_password"), Labels::Secret);
        assert_eq!(Labels::named("PIN"), Labels::Secret);
        for name in ["pinned", "token_count", "name", "keyboard", "secretary"] {
            assert_eq!(Labels::named(name), Labels::None, "{name}");
        }
    }
}
