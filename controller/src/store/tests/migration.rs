//! From the first version of the schema to this one, with everything that was kept.

use super::*;

/// A database as a controller of the first version left it.
const FIRST: &str = include_str!("version-1.sql");

#[test]
fn a_database_of_the_first_version_is_migrated_with_all_that_it_holds() {
    let scratch = Scratch::new("version-1");
    let mut old = sqlite::writer(&scratch.made(), None).expect("it opens");
    old.batch(FIRST).expect("the first schema, with its content");
    drop(old);
    let store = scratch.store();
    wait(async {
        let verified = store.audit_verify().await.expect("it can be read");
        assert!(matches!(&verified, Verified::Whole(head) if head.seq == 3), "{verified:?}");
        let web = store.host("web-1").await.expect("it can be read").expect("it is there");
        assert!(web.accepts("s1") && web.accepts("s2") && web.labels["role"] == "web", "{web:?}");
        let old = store.host("old-1").await.expect("it can be read").expect("it is there");
        assert!(!old.accepts("s3") && old.cell.as_deref() == Some("x"), "{old:?}");
        let token = store.token("hash of 1f").await.expect("it can be read").expect("it is valid");
        assert_eq!((token.name.as_str(), token.role), ("ada", Role::Admin));
        assert_eq!(store.token("hash of 2e").await.expect("it can be read"), None, "it is over");
        let held = store.run("r1").await.expect("it can be read").expect("it is there");
        assert_eq!((held.title.as_str(), held.state.as_str(), held.events), ("It's \"odd\" ü", "held", 2));
        let events = store.events("r1", 0, 10).await.expect("they can be read");
        assert_eq!(events[1], (1, "{\"last\":\"ü\"}".to_owned()));
        // What went on has nobody who holds it any more.
        let left = store.take_abandoned().await.expect("it answers").expect("a run that nobody holds");
        assert_eq!((left.id.as_str(), left.epoch), ("r2", 2));
        assert_eq!(store.append(2, "r2", 1, &["{}".to_owned()]).await.expect("an event"), 2);
        assert_eq!(
            store.fact("halt").await.expect("it can be read").as_deref(),
            Some("{\"reason\":\"the drill is over\"}")
        );
        // And what came with later versions is kept beside it.
        let joined = NewHost { name: "web-2".to_owned(), ..NewHost::default() };
        store.enrol("hash of j1", joined).await.expect("the old token lets one in");
        store.new_run(a_run("r3")).await.expect("a run");
        assert_eq!(store.audit_head().await.expect("it can be read").seq, 4);
    });
    drop(store);
    drop(scratch.store());
}

#[test]
fn what_is_migrated_is_made_of_the_same_tables_as_what_is_new() {
    let (old, new) = (Scratch::new("old-tables"), Scratch::new("new-tables"));
    let mut first = sqlite::writer(&old.made(), None).expect("it opens");
    first.batch(FIRST).expect("the first schema");
    drop(first);
    let tables = |scratch: &Scratch| {
        drop(scratch.store());
        let asked = "SELECT m.name || '.' || c.name || ' ' || c.type || ' ' || c.\"notnull\" FROM sqlite_schema m, \
                     pragma_table_info(m.name) c ORDER BY 1";
        let mut reader = sqlite::reader(&scratch.path()).expect("it opens");
        let rows = reader.query(asked, &[]).expect("it can be read");
        rows.iter().map(|row| row.text(0).expect("a text")).collect::<Vec<_>>()
    };
    let (old, new) = (tables(&old), tables(&new));
    assert!(new.len() > 60, "{new:?}");
    assert_eq!(old, new);
}
