//! Pieces of a page as they change.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::*;

/// Reads until something was said; gives all that was.
async fn until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut said = Vec::new();
    let read = async {
        loop {
            let mut piece = [0; 64 << 10];
            let read = stream.read(&mut piece).await.expect("the stream is read");
            said.extend_from_slice(&piece[..read]);
            let text = String::from_utf8_lossy(&said).into_owned();
            if text.contains(wanted) {
                return text;
            }
            assert!(read > 0, "it ended without `{wanted}`: {text}");
        }
    };
    timeout(Duration::from_secs(60), read).await.expect("it is said in time")
}

async fn followed(browser: &Browser) -> TcpStream {
    browser.begin("GET /runs/r1/live?host= HTTP/1.1\r\n", "").await
}

/// So many look while a run goes on; how long each new event takes until the last of them has it drawn.
async fn lags(viewers: usize) -> Vec<Duration> {
    let served = Served::new().await;
    served.store.new_run(a_run("r1", "Checkout survives")).await.expect("a run");
    served.store.set_run_state("r1", "running", 0).await.expect("it goes on");
    let mut browser = Browser::new(served.at);
    browser.sign_in(served.token("viewer")).await;
    let mut streams = Vec::new();
    for _ in 0..viewers {
        let mut stream = followed(&browser).await;
        until(&mut stream, "waiting for its first host").await;
        streams.push(stream);
    }
    let all = events("shop-1");
    // Up to the first fault, which is then seen to be live.
    let cut = all.iter().position(|line| line.contains("\"event\":\"injected\"")).expect("a fault") + 1;
    let mut lags = Vec::new();
    for (from, to, wanted) in [(0, cut, "a fault is live"), (cut, all.len(), "event: piece")] {
        let begun = Instant::now();
        served.store.append(0, "r1", from as u64, &all[from..to]).await.expect("events");
        for stream in &mut streams {
            until(stream, wanted).await;
        }
        lags.push(begun.elapsed());
    }
    served.store.set_run_state("r1", "deviated", 0).await.expect("it ended");
    for stream in &mut streams {
        let said = until(stream, "event: end").await;
        assert!(said.contains("deviated"), "{said}");
    }
    served.stop().await;
    lags
}

#[tokio::test]
async fn pieces_come_to_fifty_viewers_as_they_change_and_end_with_the_run() {
    let lags = lags(50).await;
    println!("the last of 50 viewers: {lags:?} behind the event");
}
