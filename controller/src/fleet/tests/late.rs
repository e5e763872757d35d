//! What comes just after a host was let in: a revocation, a store that fails or hangs at a renewal, one renewal after the other.

use super::*;

/// A registry that hears of a revocation, and then of a store that fails or hangs, just after it has let a host in.
struct Late {
    roll: Arc<Roll>,
    hub: Hub,
    revokes: bool,
}

impl Registry for Late {
    fn enrol<'a>(&'a self, token: &'a str, host: Member) -> Answer<'a, ()> {
        self.roll.enrol(token, host)
    }

    fn admit<'a>(&'a self, host: &'a str, serial: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.roll.admit(host, serial).await?;
            if self.revokes {
                self.roll.revoke(host);
                self.hub.cut_off(host);
            }
            Ok(())
        })
    }

    fn renew<'a>(&'a self, host: &'a str, _: &'a str, _: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            match host {
                "hangs" => std::future::pending().await,
                _ => Err(Refusal::bare("away")),
            }
        })
    }
}

async fn late(name: &str, revokes: bool) -> Fleet {
    let mut fleet = fleet(name, Terms::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    fleet.address = listener.local_addr().unwrap();
    let registry = Late { roll: fleet.roll.clone(), hub: fleet.hub.clone(), revokes };
    let (authority, hub) = (fleet.authority.clone(), fleet.hub.clone());
    let agents = Listener::new(authority, Arc::new(registry), hub, Terms::default()).unwrap();
    tokio::spawn(async move { agents.serve(listener).await });
    fleet
}

#[tokio::test]
async fn a_host_that_is_revoked_between_being_let_in_and_having_its_place_does_not_stay() {
    let fleet = late("between", true).await;
    let member = fleet.member("web-1").await;
    let mut socket = fleet.dial(Some(&member)).await.unwrap();
    say(&mut socket, &hello(vec![1])).await;
    assert!(refusal(&mut socket).await.contains("revoked"));
    assert!(!fleet.hub.is_connected("web-1"));
}

#[tokio::test]
async fn a_store_that_fails_or_hangs_at_a_renewal_ends_no_stream_and_keeps_nothing_waiting() {
    let fleet = late("renewals", false).await;
    for name in ["fails", "hangs"] {
        let member = fleet.member(name).await;
        let mut socket = fleet.connect(&member).await;
        let (mut local, stream) = fleet.opened(name, &mut socket).await;
        say(&mut socket, &Frame::Renew).await;
        local.write_all(b"a line\n").await.unwrap();
        let Some(Frame::Data { text, .. }) = next(&mut socket).await else { panic!("{name}: no data") };
        assert_eq!(text, "a line\n");
        say(&mut socket, &Frame::Data { stream, seq: 1, text: "an answer\n".to_owned() }).await;
        let mut line = [0; 10];
        timeout(PATIENCE, local.read_exact(&mut line)).await.unwrap().unwrap();
        assert_eq!(&line, b"an answer\n");
        assert!(fleet.hub.is_connected(name));
    }
}

#[tokio::test]
async fn a_host_that_asks_for_one_certificate_after_the_other_gets_one() {
    let fleet = fleet("greedy", Terms::default()).await;
    let member = fleet.member("web-1").await;
    let mut socket = fleet.connect(&member).await;
    for _ in 0..50 {
        say(&mut socket, &Frame::Renew).await;
    }
    say(&mut socket, &Frame::Ping { number: 7 }).await;
    let (mut given, mut answered) = (0, false);
    while given == 0 || !answered {
        match next(&mut socket).await {
            Some(Frame::Renewed { .. }) => given += 1,
            Some(Frame::Pong { number: 7 }) => answered = true,
            other => panic!("{other:?}"),
        }
    }
    say(&mut socket, &Frame::Renew).await;
    say(&mut socket, &Frame::Ping { number: 8 }).await;
    assert_eq!(next(&mut socket).await, Some(Frame::Pong { number: 8 }), "no other one is given");
}
