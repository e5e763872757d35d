//! What several controllers do on one PostgreSQL, and what becomes of one that loses it.

use super::*;

/// Two controllers on one database: the chain has no forks, and a run's events no doubles.
pub fn together(place: &Where) {
    let stores = [Store::open(place).expect("one"), Store::open(place).expect("another")];
    wait(async {
        let mut at_once = tokio::task::JoinSet::new();
        for number in 0..100 {
            let store = stores[number % 2].clone();
            at_once.spawn(async move {
                // Crosswise: rows are locked in different orders, and who loses begins again.
                let run = format!("r{:02}", 1 + (number / 2) % 3);
                store.audit("ada", json!({ "n": number })).await.expect("an entry");
                store.append(0, &run, 0, &[text("the same")]).await.expect("an event")
            });
        }
        assert!(at_once.join_all().await.iter().all(|next| *next == 1));
        for store in &stores {
            let verified = store.audit_verify().await.expect("it can be read");
            assert!(matches!(verified, Verified::Whole(head) if head.seq == 163));
        }
    });
}

/// Two controllers on one database: what one does the other hears of without looking, also after its connection was cut.
pub fn heard(world: &World, service: &Service) {
    let place = place(world, "postgres");
    let [one, other] = [Store::open(&place).expect("one"), Store::open(&place).expect("another")];
    assert!(other.is_shared());
    let listening = "FROM pg_stat_activity WHERE application_name = 'squall listens'";
    let listen = |many: &str| {
        holds("them to listen", PATIENCE, || {
            query(world, service, &format!("SELECT count(*) {listening}")).is_ok_and(|count| count == many)
        });
    };
    let (mut changes, mut orders) = (other.changes(), other.orders());
    wait(one.new_run(a_run("heard"))).expect("a run");
    for round in 0..3 {
        listen("2");
        // Whoever begins to listen looks once more. Of several things at most one is seen by that.
        for number in 0..3 {
            let seq = 3 * round + number;
            wait(async {
                changes.mark_unchanged();
                one.append(0, "heard", seq, &[text("something")]).await.expect("an event");
                timeout(PATIENCE, changes.changed()).await.expect("it is heard").expect("it listens");
                orders.mark_unchanged();
                one.set_fact("drill", Some(format!("{seq}"))).await.expect("a fact");
                timeout(PATIENCE, orders.changed()).await.expect("it is heard").expect("it listens");
            });
        }
        // A host that is revoked is to be cut off by whoever it is connected to.
        wait(async {
            orders.mark_unchanged();
            one.revoke_host("web").await.expect("it is there");
            timeout(PATIENCE, orders.changed()).await.expect("it is heard").expect("it listens");
        });
        let cut = format!("SELECT count(pg_terminate_backend(pid)) {listening}");
        assert_eq!(query(world, service, &cut).expect("they are ended"), "2");
        listen("0");
    }
    wait(async {
        // Of one's own one is not told twice.
        let mut own = one.changes();
        own.mark_unchanged();
        one.append(0, "heard", 9, &[text("the last")]).await.expect("an event");
        assert!(own.has_changed().expect("it is there"));
    });
    let halt = wait(one.want_host_halts(&[text("web"), text("db")])).expect("it is wanted");
    let wanted = |store: &Store| wait(store.halts("drill", vec![text("heard")])).expect("it can be asked");
    let of = |host: &str| HostHalt { halt: halt.clone(), host: text(host) };
    assert_eq!(wanted(&other).hosts, [of("db"), of("web")]);
    wait(one.want_halt("heard")).expect("it is wanted");
    let halts = wanted(&other);
    assert_eq!((halts.all.as_deref(), halts.runs), (Some("8"), vec![text("heard")]));
    wait(other.take_host_halt(&of("web"))).expect("it is taken");
    wait(other.host_halted(&of("web"), "undone")).expect("it is said");
    wait(other.host_halted(&of("web"), "later")).expect("the first counts");
    assert_eq!(wanted(&other).hosts, [of("db")]);
    let did = wait(one.host_halts(&halt)).expect("it can be asked");
    let did: Vec<_> = did.iter().map(|of| (of.host.as_str(), of.taken, of.did.as_deref())).collect();
    assert_eq!(did, [("db", false, None), ("web", true, Some("undone"))]);
}

/// A run that another controller is about to take over is passed by, and nobody waits for it.
pub fn locked(world: &World, service: &Service) {
    let store = Store::open(&place(world, "postgres")).expect("it opens");
    let mut other = session(world, service).expect("it lets us in");
    let mut ask = |sql: &str| other.query(sql).expect("it answers");
    ask("UPDATE runs SET held_until = 9000000000000000000");
    for run in ["older", "younger"] {
        wait(store.new_run(a_run(run))).expect("a run");
    }
    ask(
        "UPDATE runs SET held_until = 0, made_at = CASE id WHEN 'older' THEN 1 ELSE 2 END WHERE id IN ('older', 'younger')",
    );
    let take = || {
        wait(async { timeout(PATIENCE, store.take_abandoned()).await })
            .expect("nobody is waited for")
            .expect("it answers")
    };
    ask("BEGIN");
    ask("SELECT id FROM runs WHERE id = 'older' FOR UPDATE");
    assert_eq!(take().map(|run| run.id).as_deref(), Some("younger"));
    assert_eq!(take(), None);
    ask("ROLLBACK");
    assert_eq!(take().map(|run| (run.id, run.epoch)), Some((text("older"), 1)));
}

/// Ends PostgreSQL as its administrator does.
pub fn ends(postmaster: i32) {
    kill_process(Pid::from_raw(postmaster).expect("a process"), Signal::INT).expect("it is ours");
    holds("PostgreSQL to end", PATIENCE, || {
        Process::of(postmaster).is_none_or(|process| process.state == 'Z')
    });
}

/// Starts PostgreSQL again, the first service of its world.
pub fn begins_again(world: &World) -> Process {
    let programs = postgres_programs().expect("it was found before");
    let program = programs.join("postgres").display().to_string();
    let directory = world.directory.join("service-0");
    let (data, sockets) = (directory.join("data").display().to_string(), directory.display().to_string());
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&data).expect("it is there"));
    world.program(0, Some(owner), &[&program, "-D", &data, "-k", &sockets, "-p", "5432", "-c", "fsync=off"])
}

/// Two controllers on one database: each entry of a schedule is begun by one of them, two of one group are not begun too near each
/// other, and of a quorum one member is let in.
pub fn once(place: &Where) {
    let stores = [Store::open(place).expect("one"), Store::open(place).expect("another")];
    let schedule =
        |name: &str| NewSchedule { name: text(name), document: text("{}"), seed: 7, by: text("ada"), at: 1 };
    let due = |name: &str, at: u64, apart: Option<u64>| Due {
        schedule: text(name),
        since: 1,
        at,
        group: String::new(),
        barred: None,
        apart,
        late: false,
        leashed: false,
    };
    let claimed = |rows: Vec<Option<EntryRow>>| {
        rows.into_iter().flatten().filter(|row| row.state == states::CLAIMED).count()
    };
    wait(async {
        for name in ["each", "near"] {
            stores[0].new_schedule(schedule(name)).await.expect("a schedule");
        }
        let clash = stores[1].new_schedule(schedule("near")).await.expect_err("it is there");
        assert!(matches!(clash, StoreError::Clash(_)), "{clash}");
        let mut each = tokio::task::JoinSet::new();
        let mut near = tokio::task::JoinSet::new();
        let mut quorum = tokio::task::JoinSet::new();
        for number in 0..60 {
            let store = stores[usize::from(number % 2 == 1)].clone();
            let (one, other) = (due("each", 100 + number / 2, None), due("near", 100 + number, Some(1)));
            let again = store.clone();
            each.spawn(async move { store.decide_entry(one).await.expect("it is decided") });
            near.spawn(async move { again.decide_entry(other).await.expect("it is decided") });
        }
        for number in 0..20 {
            let store = stores[number % 2].clone();
            let labels = BTreeMap::from([(text("role"), text("etcd"))]);
            let budget =
                Budget { quorum: BTreeMap::from([(text("etcd"), labels.clone())]), ..Budget::default() };
            let uses = vec![HostUse { host: format!("etcd-{number}"), labels, zone: None, faults: 1 }];
            let (run, outcomes, coming) = (a_run(&format!("quorum-{number}")), Vec::new(), Vec::new());
            let (entry, overruled, approval) = (None, None, None);
            let admission = Admission { run, uses, outcomes, entry, coming, overruled, approval };
            quorum.spawn(async move { store.admit(admission, budget).await.expect("it is kept") });
        }
        assert_eq!(claimed(each.join_all().await), 30);
        assert_eq!(claimed(near.join_all().await), 1);
        let passed = quorum.join_all().await.into_iter().filter(|admitted| admitted.begins).count();
        assert_eq!(passed, 1);
        let kept = stores[1].entries(Some("each"), 0, 1000, 100).await.expect("entries");
        assert_eq!(kept.len(), 30);
    });
}

/// The database is ended and started again under a store that is open.
pub fn away(world: &World, service: &Service) {
    let store = Store::open(&place(world, "second")).expect("it opens");
    wait(store.new_run(a_run("r"))).expect("a run");
    // Its connections end under it, and it notices only when it uses them.
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'second'";
    query(world, service, ended).expect("they are ended");
    wait(store.append(0, "r", 0, &[text("after the first end")])).expect("it connects again by itself");

    ends(service.pid);
    let away = wait(store.append(0, "r", 1, &[text("lost")])).expect_err("there is no database");
    assert!(matches!(away, StoreError::Away(_)), "{away}");
    wait(store.ready()).expect_err("there is no database");

    begins_again(world);
    holds("the store to answer", PATIENCE, || wait(store.ready()).is_ok());
    wait(store.append(0, "r", 1, &[text("back")])).expect("it is back");
    let kept = wait(store.events("r", 0, 10)).expect("they can be read");
    assert_eq!(kept, [(0, text("after the first end")), (1, text("back"))]);
}
