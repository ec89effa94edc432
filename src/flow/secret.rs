//! Secrets, recognised by how they are made or by the word that stands before them.

use super::text::Canon;

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
        let canon: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let canon = canon.to_ascii_lowercase();
        const SAYING: [&str; 12] = [
            "password",
            "passwd",
            "passphrase",
            "secret",
            "apikey",
            "accesskey",
            "privatekey",
            "accesstoken",
            "authtoken",
            "refreshtoken",
            "pin",
            "otp",
        ];
        let says = SAYING.iter().any(|word| canon == *word || (word.len() > 3 && canon.ends_with(word)));
        if says { Labels::Secret } else { Labels::None }
    }
}

/// Calls back with the canonical form of every secret in a text.
pub fn find(text: &str, canon: &Canon, labels: Labels, mut found: impl FnMut(&[u8])) {
    if labels == Labels::Secret && !canon.bytes.is_empty() && canon.bytes.len() <= 256 {
        found(&canon.bytes);
    }
    for piece in &canon.pieces {
        let raw = text.get(piece.raw_start as usize..piece.raw_end as usize).unwrap_or_default();
        if piece.is_made_up() && is_secret(raw) {
            found(canon.piece(piece));
        }
    }
}

/// Whether a piece is made like a key of a known kind.
pub fn is_secret(piece: &str) -> bool {
    KINDS.iter().any(|(prefix, length_min)| piece.len() >= *length_min && piece.starts_with(prefix))
}

/// How keys of known kinds begin, and how long they are at least.
const KINDS: [(&str, usize); 4] = [("AKIA", 20), ("ghp_", 40), ("xoxb-", 30), ("sk-", 32)];
