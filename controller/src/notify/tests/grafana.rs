//! Faults as regions, on what answers as Grafana does: it keeps annotations, finds them by all their tags, and alters them.

use serde_json::json;

use super::*;

/// What Grafana keeps.
type Kept = Arc<Mutex<Vec<Value>>>;

async fn grafana() -> (SocketAddr, Kept) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
    let at = listener.local_addr().expect("an address");
    let kept: Kept = Arc::default();
    let theirs = Arc::clone(&kept);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Some(asked) = request(&mut stream).await else { continue };
            assert_eq!(asked.header("authorization"), "bearer glsa_1");
            let answer = answer(&asked, &mut theirs.lock().expect("nobody panics with it"));
            let (answer, length) = (answer.to_string(), answer.to_string().len());
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all((head + &answer).as_bytes()).await;
        }
    });
    (at, kept)
}

fn answer(asked: &Request, kept: &mut Vec<Value>) -> Value {
    let mut words = asked.line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    match (method, path.strip_prefix("/api/annotations")) {
        ("GET", Some("")) => {
            let tags: Vec<String> = form_urlencoded::parse(query.as_bytes())
                .filter(|(name, _)| name == "tags")
                .map(|(_, tag)| tag.into_owned())
                .collect();
            let has = |one: &Value, tag: &String| {
                one["tags"].as_array().is_some_and(|tags| tags.contains(&json!(tag)))
            };
            kept.iter().filter(|one| tags.iter().all(|tag| has(one, tag))).cloned().collect()
        }
        ("POST", Some("")) => {
            let mut new = asked.json();
            new["id"] = (kept.len() + 1).into();
            if new["timeEnd"].is_null() {
                new["timeEnd"] = new["time"].clone();
            }
            kept.push(new);
            json!({ "message": "Annotation added", "id": kept.len() })
        }
        ("PATCH", Some(id)) => {
            let id: u64 = id.trim_start_matches('/').parse().expect("an id");
            let one = kept.iter_mut().find(|one| one["id"] == id).expect("it is there");
            one["timeEnd"] = asked.json()["timeEnd"].clone();
            json!({ "message": "Annotation patched" })
        }
        other => panic!("nobody asks {other:?}"),
    }
}

async fn draws(receiver: &Receiver, store: &Store, happening: &Happening, at: u64) {
    let told = story::tell(store, None, happening, &happening.id(at), at).await.expect("the store answers");
    assert!(receiver.wants(happening, &told), "{happening:?}");
    let came = attempt::attempt(receiver, happening, &told).await;
    assert!(matches!(came, Attempt::Taken(_)), "{happening:?}: {came:?}");
}

#[tokio::test]
async fn a_fault_is_one_region_however_often_it_is_told_and_a_run_leaves_none_open() {
    let place = Place::new();
    let (at, kept) = grafana().await;
    place.file("token", "glsa_1\n");
    let lines = [format!(
        "{{ name: board, grafana: {{ url: \"http://{at}\", token: {{ file: token }}, tags: [shop] }} }}"
    )];
    let receiver = &place.receivers(&lines)[0];
    place.store.new_run(a_run("r1")).await.expect("a run");
    let injected = |part| Happening::FaultInjected { run: "r1".to_owned(), part, name: "<slow>".to_owned() };
    let reverted = |part, since| Happening::FaultReverted {
        run: "r1".to_owned(),
        part,
        name: "<slow>".to_owned(),
        since,
    };
    let kept = || kept.lock().expect("nobody panics with it").clone();

    draws(receiver, &place.store, &injected(1), 1000).await;
    draws(receiver, &place.store, &injected(1), 1000).await;
    draws(receiver, &place.store, &injected(2), 1500).await;
    draws(receiver, &place.store, &reverted(1, 1000), 3000).await;
    draws(receiver, &place.store, &reverted(1, 1000), 3000).await;
    let times = |one: &Value| (one["time"].as_u64(), one["timeEnd"].as_u64());
    assert_eq!(
        kept().iter().map(times).collect::<Vec<_>>(),
        [(Some(1000), Some(3000)), (Some(1500), Some(1500))]
    );
    assert_eq!(kept()[0]["tags"], json!(["shop", "squall", "run:r1", "part:1"]));
    let text = kept()[0]["text"].as_str().expect("a text").to_owned();
    assert!(text.contains("&lt;slow&gt;") && !text.contains('<'), "{text}");

    // One whose beginning was lost is drawn whole, and what nobody has closed ends with its run.
    draws(receiver, &place.store, &reverted(3, 2000), 4000).await;
    let ended = Happening::RunEnded { run: "r1".to_owned(), verdict: "interrupted".to_owned() };
    draws(receiver, &place.store, &ended, 5000).await;
    let times: Vec<_> = kept().iter().map(times).collect();
    assert_eq!(times, [(Some(1000), Some(3000)), (Some(1500), Some(5000)), (Some(2000), Some(4000))]);
}
