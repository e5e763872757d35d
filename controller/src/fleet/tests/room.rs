//! A controller whose room is taken.

use std::collections::BTreeMap;

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
