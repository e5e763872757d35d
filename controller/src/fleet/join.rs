//! What a host must prove to join, and what it gets.

use std::time::Duration;

use rustls::SignatureScheme;
use rustls::crypto::ring;
use squall_experiments::fleet::{Join, JoinToken, Joined, is_name, unhex};
use squall_experiments::protocol::Refusal;

use super::authority::{Authority, Serial};
use super::registry::{Member, Registry, no_such_token};

/// The length of an uncompressed point on P-256.
const POINT: usize = 65;
/// The most that a host may say of itself, in bytes.
const LABELS: usize = 8 << 10;

/// Lets a host in that has a token, and proves that it has the key for which it wants a certificate.
pub async fn join(
    wanted: Join,
    authority: &Authority,
    registry: &dyn Registry,
    lasts: Duration,
) -> Result<Joined, Refusal> {
    let Join { token, name, key, proof, labels, zone, cell } = wanted;
    let token = JoinToken::from_secret(&token, authority.fingerprint()).ok_or_else(no_such_token)?;
    if !is_name(&name) {
        return Err(Refusal::new(
            format!("`{}` cannot be a host's name", name.escape_default()),
            "choose one of at most 64 small letters, digits, `-`, `_` and `.` with `--name`",
        ));
    }
    let said: usize = labels.iter().map(|(label, value)| label.len() + value.len()).sum();
    if said + zone.as_deref().map_or(0, str::len) + cell.as_deref().map_or(0, str::len) > LABELS {
        return Err(Refusal::bare(format!("the labels of `{name}` are longer than {LABELS} bytes")));
    }
    let point = proved(&token, &name, &key, &proof)?;
    let broken = |error: super::AuthorityError| {
        tracing::error!(%error, host = name, "no certificate can be issued");
        Refusal::bare("the controller cannot issue a certificate now")
    };
    let serial = Serial::new();
    let member = Member { name: name.clone(), key, serial: serial.digits(), labels, zone, cell };
    // Before anything is signed: whoever has no token costs no signature. One who gets none after this asks again with its key.
    registry.enrol(&token.hash(), member).await?;
    let certificate = authority.sign(&name, &point, lasts, &serial).map_err(broken)?;
    tracing::info!(host = name, "a host has joined");
    Ok(Joined { name, certificate, authority: authority.pem().to_owned() })
}

/// The key, of which the host has the private half.
fn proved(token: &JoinToken, name: &str, key: &str, signature: &str) -> Result<Vec<u8>, Refusal> {
    let unproved = || Refusal::bare(format!("`{name}` has not proved that it has the key that it names"));
    let (point, signature) = (unhex(key), unhex(signature));
    let (Some(point), Some(signature)) = (point.filter(|point| point.len() == POINT), signature) else {
        return Err(unproved());
    };
    let algorithms = ring::default_provider().signature_verification_algorithms.mapping;
    let wanted = SignatureScheme::ECDSA_NISTP256_SHA256;
    let found = algorithms.iter().find(|(scheme, _)| *scheme == wanted);
    // Of the scheme's algorithms the first is the one for keys on P-256.
    let algorithm = found.and_then(|(_, all)| all.first()).ok_or_else(unproved)?;
    let message = squall_experiments::fleet::proof(token, name, key);
    algorithm.verify_signature(&point, &message, &signature).map_err(|_| unproved())?;
    Ok(point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::registry::Roll;
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
    use squall_experiments::fleet::{hex, proof};
    use std::collections::BTreeMap;

    struct Fleet {
        authority: Authority,
        roll: Roll,
        token: JoinToken,
    }

    fn fleet(name: &str) -> Fleet {
        let directory = std::env::temp_dir().join(format!("squall-join-{name}-{}", std::process::id()));
        let authority = Authority::open(&directory).unwrap();
        std::fs::remove_dir_all(directory).unwrap();
        let token = JoinToken::new([5; 32], authority.fingerprint());
        let roll = Roll::default();
        roll.allow(&token.hash(), 1);
        Fleet { authority, roll, token }
    }

    fn key() -> KeyPair {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
    }

    fn wanted(token: &JoinToken, name: &str, key: &KeyPair) -> Join {
        let point = hex(key.der_bytes());
        let proof = hex(&key.sign(&proof(token, name, &point)).unwrap());
        let (labels, zone, cell) = (BTreeMap::new(), None, None);
        Join { token: token.secret(), name: name.to_owned(), key: point, proof, labels, zone, cell }
    }

    async fn ask(fleet: &Fleet, wanted: Join) -> Result<Joined, String> {
        let lasts = Duration::from_secs(3600);
        join(wanted, &fleet.authority, &fleet.roll, lasts).await.map_err(|refusal| refusal.what)
    }

    #[tokio::test]
    async fn a_token_lets_one_host_in_once() {
        let fleet = fleet("once");
        let (first, second) = (key(), key());
        let joined = ask(&fleet, wanted(&fleet.token, "web-1", &first)).await.unwrap();
        assert_eq!(joined.name, "web-1");
        assert!(joined.certificate.starts_with("-----BEGIN CERTIFICATE"));
        // Its answer may have been lost: the same key is the same host.
        ask(&fleet, wanted(&fleet.token, "web-1", &first)).await.unwrap();
        let taken = ask(&fleet, wanted(&fleet.token, "web-1", &second)).await.unwrap_err();
        assert!(taken.contains("another host"), "{taken}");
        let used = ask(&fleet, wanted(&fleet.token, "web-2", &second)).await.unwrap_err();
        assert!(used.contains("used up"), "{used}");
        let unknown = JoinToken::new([6; 32], fleet.authority.fingerprint());
        assert_eq!(ask(&fleet, wanted(&unknown, "web-2", &second)).await.unwrap_err(), used);
    }

    #[tokio::test]
    async fn who_has_not_the_key_gets_no_certificate_and_uses_no_token_up() {
        let fleet = fleet("proof");
        let (mine, theirs) = (key(), key());
        let honest = wanted(&fleet.token, "web-1", &mine);
        let stolen = Join { key: hex(theirs.der_bytes()), ..honest.clone() };
        let renamed = Join { name: "web-2".to_owned(), ..honest.clone() };
        let short = Join { key: "04".to_owned(), ..honest.clone() };
        let empty = Join { proof: String::new(), ..honest.clone() };
        for wrong in [stolen, renamed, short, empty] {
            let refused = ask(&fleet, wrong).await.unwrap_err();
            assert!(refused.contains("has not proved"), "{refused}");
        }
        let odd = wanted(&fleet.token, "../web", &mine);
        assert!(ask(&fleet, odd).await.unwrap_err().contains("cannot be a host's name"));
        let labels = BTreeMap::from([("a".to_owned(), "b".repeat(LABELS))]);
        assert!(ask(&fleet, Join { labels, ..honest.clone() }).await.unwrap_err().contains("labels"));
        ask(&fleet, honest).await.unwrap();
    }

    #[tokio::test]
    async fn a_revoked_host_needs_a_new_token_even_with_its_old_key() {
        let fleet = fleet("revoked");
        let mine = key();
        ask(&fleet, wanted(&fleet.token, "web-1", &mine)).await.unwrap();
        fleet.roll.revoke("web-1");
        let refused = ask(&fleet, wanted(&fleet.token, "web-1", &mine)).await.unwrap_err();
        assert!(refused.contains("used up"), "{refused}");
        fleet.roll.allow(&fleet.token.hash(), 1);
        ask(&fleet, wanted(&fleet.token, "web-1", &mine)).await.unwrap();
    }
}
