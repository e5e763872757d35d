//! A controller whose room is taken.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use squall_experiments::fleet::Join;

use super::*;
use crate::fleet::Room;

#[tokio::test]
async fn a_host_that_there_is_no_room_for_is_told_so_and_keeps_its_token() {
    // Room for sixteen, fifteen of which a run has.
    let hub = Hub::within(Room::within(128).unwrap());
    let fleet = fleet_in("full", Terms::default(), hub).await;
    let run = fleet.hub.room().run(15, 1).unwrap();
    let (first, second) = (fleet.member("web-1").await, fleet.member("web-2").await);
    let seated = fleet.connect(&first).await;
    let turned_away = async |member: Option<&Card>, frame: &Frame| {
        let mut socket = fleet.dial(member).await.unwrap();
        say(&mut socket, frame).await;
        refusal(&mut socket).await
    };
    let why = turned_away(Some(&second), &hello(vec![1])).await;
    assert!(why.contains("no room for `web-2`") && why.contains("128 files"), "{why}");
    let token = JoinToken::new([9; 32], fleet.authority.fingerprint());
    fleet.roll.allow(&token.hash(), 1);
    let text = |text: &str| text.to_owned();
    let (labels, zone, cell) = (BTreeMap::new(), None, None);
    let join = Join {
        token: "09".repeat(32),
        name: text("web-3"),
        key: text("04"),
        proof: text("00"),
        labels,
        zone,
        cell,
    };
    let why = turned_away(None, &Frame::Join(join)).await;
    assert!(why.contains("no room for `web-3`"), "{why}");
    fleet.roll.enrol(&token.hash(), Member::default()).await.expect("it was not used up");
    assert_eq!(fleet.hub.connected().len(), 1);
    // As soon as somebody goes there is room again.
    drop(run);
    let other = fleet.connect(&second).await;
    assert_eq!(fleet.hub.connected().len(), 2);
    drop((seated, other));
    fleet.until("all of it to be free again", |hub| hub.room().run(16, 1).is_ok()).await;
}

#[tokio::test]
async fn more_hosts_than_are_greeted_at_once_all_come_and_who_says_nothing_keeps_nobody_waiting() {
    let fleet = fleet("turns", Terms::default()).await;
    // More than have a turn at once, here.
    let begun = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(TcpStream::connect(fleet.address).await.unwrap());
    }
    let mut members = Vec::new();
    for number in 0..12 {
        members.push(fleet.member(&format!("web-{number}")).await);
    }
    let seated = futures_util::future::join_all(members.iter().map(|member| fleet.connect(member))).await;
    assert_eq!(fleet.hub.connected().len(), 12);
    // Nobody was closed so that a host could come; in the end all of them are.
    let all: Vec<_> = silent.iter().map(|stream| stream.try_read(&mut [0])).collect();
    if begun.elapsed() < Duration::from_secs(9) {
        let open = |said: &io::Result<usize>| {
            said.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        assert!(all.iter().all(open), "{all:?}");
    }
    drop(seated);
}
