//! Who wants to join too often.

use std::collections::BTreeMap;
use std::time::Instant;

use squall_experiments::fleet::{Join, proof};

use super::*;
use crate::rate::OF_JOINS;

fn wanted(token: &JoinToken, name: &str) -> Frame {
    use rcgen::SigningKey;
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let point = hex(key.der_bytes());
    let proof = hex(&key.sign(&proof(token, name, &point)).unwrap());
    let (labels, zone, cell) = (BTreeMap::new(), None, None);
    Frame::Join(Join { token: token.secret(), name: name.to_owned(), key: point, proof, labels, zone, cell })
}

#[tokio::test]
async fn who_tries_out_tokens_is_made_to_wait_and_a_host_that_waits_joins() {
    let fleet = fleet("joins", Terms::default()).await;
    let good = JoinToken::new([7; 32], fleet.authority.fingerprint());
    fleet.roll.allow(&good.hash(), 1);
    let ask = async |token: &JoinToken| {
        let mut socket = fleet.dial(None).await.unwrap();
        say(&mut socket, &wanted(token, "web-1")).await;
        next(&mut socket).await.expect("an answer")
    };
    let began = Instant::now();
    let mut tried = 0_u32;
    let waits = loop {
        let wrong = JoinToken::new(rand::random(), fleet.authority.fingerprint());
        tried += 1;
        match ask(&wrong).await {
            Frame::Refused(refusal) if refusal.what.contains("too many") => break refusal,
            Frame::Refused(refusal) => assert!(refusal.what.contains("token"), "{refusal}"),
            other => panic!("{other:?}"),
        }
        // On a machine that is slow the pace allows further ones meanwhile.
        let allowed = OF_JOINS.at_once() + u32::try_from(began.elapsed().as_secs()).unwrap() + 1;
        assert!(tried <= allowed, "nobody is made to wait: {tried} in {:?}", began.elapsed());
    };
    assert!(waits.help.as_deref().is_some_and(|help| help.contains("try again in")), "{waits}");
    assert!(tried > OF_JOINS.at_once(), "already at {tried}");
    // The same address with a token that is good, when it has waited as it was told.
    let joined = timeout(PATIENCE, async {
        loop {
            match ask(&good).await {
                Frame::Joined(joined) => return joined,
                Frame::Refused(refusal) => assert!(refusal.what.contains("too many"), "{refusal}"),
                other => panic!("{other:?}"),
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    assert_eq!(joined.await.expect("it may join in the end").name, "web-1");
}
