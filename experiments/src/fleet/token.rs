//! What a host needs to join: a secret for one use, and by which mark it knows the controller.

use std::fmt;
use std::str::FromStr;

use super::{hex, unhex};

/// How every token begins: what it is for, and its version.
const BEGINNING: &str = "squall-join-1";

/// A join token. In writing it is `squall-join-1.SECRET.FINGERPRINT`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: [u8; 32],
    authority: [u8; 32],
}

/// Why something is no join token. It does not repeat what was given: that may be a secret.
#[derive(Debug, thiserror::Error)]
#[error("this is no join token: one begins with `{BEGINNING}.` and has 143 characters")]
pub struct TokenError;

impl JoinToken {
    /// A token of 32 random bytes and the SHA-256 of the authority's certificate.
    pub fn new(secret: [u8; 32], authority: [u8; 32]) -> Self {
        JoinToken { secret, authority }
    }

    /// The SHA-256 of the certificate that the controller's must be issued by.
    pub fn authority(&self) -> &[u8; 32] {
        &self.authority
    }

    /// The secret, as a host says it to the controller, in hexadecimal digits.
    pub fn secret(&self) -> String {
        hex(&self.secret)
    }

    /// What a controller keeps of it: the secret cannot be had from it (BLAKE3).
    pub fn hash(&self) -> String {
        blake3::hash(&self.secret).to_hex().to_string()
    }

    /// [`JoinToken::hash`] of a secret as a host says it; `None` where it is none.
    pub fn from_secret(secret: &str, authority: [u8; 32]) -> Option<Self> {
        Some(JoinToken { secret: unhex(secret)?.try_into().ok()?, authority })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BEGINNING}.{}.{}", hex(&self.secret), hex(&self.authority))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(…)")
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let part = |text: &str| unhex(text).and_then(|bytes| bytes.try_into().ok()).ok_or(TokenError);
        match text.trim().split('.').collect::<Vec<_>>()[..] {
            [BEGINNING, secret, authority] => {
                Ok(JoinToken { secret: part(secret)?, authority: part(authority)? })
            }
            _ => Err(TokenError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_from_its_text_and_nothing_else_does() {
        let token = JoinToken::new([7; 32], [9; 32]);
        let text = token.to_string();
        assert_eq!(format!("{text}\n").parse::<JoinToken>().unwrap(), token);
        assert_eq!(text.len(), 13 + 1 + 64 + 1 + 64);
        for wrong in
            ["", "squall-join-1", &text[..text.len() - 2], &text.replace('7', "x"), &text.replace("1.", "2.")]
        {
            let error = wrong.parse::<JoinToken>().unwrap_err().to_string();
            assert!(!error.contains("0707"), "{error}");
        }
    }

    #[test]
    fn a_token_is_shown_to_nobody_and_kept_as_a_hash() {
        let token = JoinToken::new([7; 32], [9; 32]);
        assert!(!format!("{token:?}").contains('7'));
        assert!(!token.hash().contains(&token.secret()));
        let said = JoinToken::from_secret(&token.secret(), [9; 32]).unwrap();
        assert_eq!(said.hash(), token.hash());
        assert_eq!(JoinToken::from_secret("07", [9; 32]), None);
    }
}
