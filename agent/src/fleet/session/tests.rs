//! A new certificate, and a disk that takes it or does not.

use rcgen::PKCS_ECDSA_P256_SHA256;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::line::Line as Way;

/// A certificate that ends after so many seconds, as a controller gives it.
fn certificate(key: &KeyPair, lasts: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now + lasts);
    parameters.self_signed(key).unwrap().pem()
}

/// What the worker is asked to keep.
async fn asked(worker: &Errands) -> u64 {
    match worker.hear::<Ask>().await.unwrap() {
        Some((Ask::Keep(membership), _)) => membership.until,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_new_certificate_is_used_once_it_is_kept_and_until_then_the_one_on_the_disk() {
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.unwrap();
    let worker = Errands::new(Way::new(theirs)).unwrap();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let given = [1000, 2000, 3000].map(|lasts| certificate(&key, lasts));
    let [first, second, third] = given;
    let joined = Joined { name: "a".to_owned(), authority: first.clone(), certificate: first.clone() };
    let mut lasting = Lasting {
        errands: Errands::new(Way::new(ours)).unwrap(),
        errand: 0,
        key,
        membership: Some(Membership::new(joined).unwrap()),
        unkept: None,
        inventory: Inventory::default(),
        streams: Streams::default(),
    };
    let ((data, _datas), (control, _controls)) = (mpsc::channel(1), mpsc::channel(1));
    let (holds_to, _holds) = mpsc::channel(1);
    let out = Out { data, control };
    let opening = BTreeMap::new();
    let mut link = Link { lasting: &mut lasting, out, opening, holds: None, holds_to, renewing: None };
    let used = |link: &Link<'_>| link.lasting.membership.clone().unwrap().joined.certificate;

    link.take(Frame::Renewed { certificate: second.clone() }).expect_err("nobody has asked");
    link.renewing = Some(Instant::now());
    link.take(Frame::Renewed { certificate: second }).unwrap();
    assert_eq!(used(&link), first, "nobody knows yet whether it is kept");
    link.take(Frame::Renewed { certificate: third.clone() }).expect_err("one after the other");
    link.kept(asked(&worker).await, false);
    assert_eq!(used(&link), first, "the disk is full");
    assert!(link.renewing.is_some(), "it is asked for again, later");

    link.take(Frame::Renewed { certificate: third.clone() }).unwrap();
    let until = asked(&worker).await;
    link.kept(until - 1, true);
    assert_eq!(used(&link), first, "that was said of another one");
    link.kept(until, true);
    assert_eq!((used(&link), link.renewing.is_some()), (third, false));
}
